"""Charts of distributions: what a legend says of what can't be drawn, and what is counted."""

import numpy as np

from causalprune.analysis.plots.histograms import density_chart, gamma_histogram, gamma_summary, kkt_histogram

WHOLE = {"dimension": 900, "density_at": [0.0, 1.0, 99.0], "density": [1.0, 0.5, 0.1]}
SMALL = {"dimension": 57, "density_at": [], "density": []}


def test_the_legend_says_whose_spectrum_is_missing():
    chart = density_chart([("not pruned", "#B4B4B4", WHOLE), ("gamma", "#0072B2", SMALL)], "Hessian spectrum")
    assert [curve.name for curve in chart.curves] == ["not pruned", "gamma: none of 57 parameters"]


def test_eigenvalues_stand_where_the_ticks_say():
    chart = density_chart([("not pruned", "#B4B4B4", WHOLE)], "")
    ticks = {text: place for place, text in chart.x.ticks}
    assert list(ticks) == ["0", "1", "10"]
    assert [chart.curves[0].x[0], chart.curves[0].x[1]] == [ticks["0"], ticks["1"]]
    assert ticks["10"] < chart.curves[0].x[2] < 2 * ticks["10"]


def test_every_coefficient_is_counted_once():
    generator = np.random.default_rng(0)
    gamma = generator.normal(size=500) * 10.0 ** generator.uniform(-9, 3, 500)
    gamma[:200] = 0
    scores = generator.uniform(0, 1, 500)
    summaries = [gamma_summary(gamma, scores), gamma_summary(-2 * gamma, scores)]
    chart = gamma_histogram(summaries)
    negative, positive = (np.array(bars.heights) for bars in chart.bars)
    assert (negative.sum(), positive.sum()) == (300, 300)
    inside = (np.log10(np.abs(gamma[gamma < 0])) >= -2).sum() + (np.log10(2 * gamma[gamma > 0]) >= -2).sum()
    assert negative[np.array(chart.left) >= -2].sum() == inside
    assert sum(kkt_histogram(summaries).bars[0].heights) == 400
