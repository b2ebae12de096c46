"""Every kind of chart, drawn by both: as a picture for light and dark pages, and as plotly's own schema has it."""

import json

import pytest
from pictures import pixels

from causalprune.analysis.plots.chart import Axis, Bars, Curve, Fall, FallChart, HeatMap, Histogram, LineChart
from causalprune.analysis.plots.colors import look_of
from causalprune.analysis.plots.draw import draw
from causalprune.analysis.plots.figures import DARK, LIGHT
from causalprune.analysis.plots.interactive import figure_of

HOSTILE = "<b onmouseover=alert(1)>%{x} $x$ & 'name'"
EFFECT = look_of("effect").color
CURVE = Curve(
    HOSTILE, (0.0, 1.0, 2.0), (0.9, 0.8, 0.1), EFFECT, "o", "--", (0.1, 0.2, 0.2), ((1.0, 0.7),), ("a", "b", "<")
)
X = Axis("x <1>", ((0.0, "0"), (1.0, "90")), low=-0.1, high=2.1, grid=True)
CHARTS = {
    "lines": LineChart(HOSTILE, X, Axis("y", log=True), (CURVE, Curve("", (0.0,), (1.0,), EFFECT, ".", "")), 0.95),
    "above": LineChart("", X, Axis("y"), (Curve("a", (0.0, 1.0), (1.0, -90.0), EFFECT),), None, -0.5),
    "histogram": Histogram(
        HOSTILE, Axis("log"), Axis("n", log=True, low=0.7), (0.0, 0.5), 0.5, (Bars("a", EFFECT, (3, 4)),)
    ),
    "stacked": Histogram(
        "", Axis(""), Axis(""), (0.0,), 1.0, (Bars("a", EFFECT, (3,)), Bars(HOSTILE, "#E69F00", (4,)))
    ),
    "cells": HeatMap(HOSTILE, "across", ("a", "b"), (HOSTILE,), ((0.0, 1.0),), (("0", "100"),)),
    "many": HeatMap("", "", ("a",), (), ((0.5,), (0.6,)), (("1",), ("2",)), down="layer"),
    "square": HeatMap("", "", ("a", "b"), ("a", "b"), ((1, 0.2), (0.2, 1)), (("1", "0"), ("0", "1")), square=True),
    "falls": FallChart(
        "", X, (Fall(HOSTILE, EFFECT, "o", 1.0, 0.1, 0.4, "said <"), Fall("b", EFFECT, "h", 0.5, None, 9, ""))
    ),
}


@pytest.mark.parametrize("name", CHARTS)
def test_plotly_knows_all_that_it_is_told(name):
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figure = figure_of(CHARTS[name])
    assert json.loads(json.dumps(figure, allow_nan=False)) == figure
    # It raises for what its schema doesn't have.
    graph_objects.Figure(figure)
    assert "<b " not in json.dumps(figure)


@pytest.mark.parametrize("name", CHARTS)
def test_pictures_have_the_colors_of_their_page(name, tmp_path):
    pytest.importorskip("matplotlib")
    for theme, other in ((LIGHT, DARK), (DARK, LIGHT)):
        draw(CHARTS[name], tmp_path / "p.png", theme)
        page, foreign = pixels(tmp_path / "p.png", theme.page, other.page)
        assert page > 5000
        assert foreign < page / 20
    if name not in ("cells", "many", "square"):
        assert pixels(tmp_path / "p.png", EFFECT)[0] > 20


def test_crowded_columns_have_brief_names():
    names = tuple(f"{n} (47.8 %)" for n in range(1, 8))
    for count, shown in ((2, names[:2]), (7, tuple("1234567"))):
        cells = ((0.5,) * count,)
        chart = HeatMap("", "", names[:count], ("a",), cells, (("5",) * count,), brief=tuple("1234567")[:count])
        figure = figure_of(chart)
        assert figure["layout"]["xaxis"]["ticktext"] == list(shown)
        # On a narrow screen always; the pointer shows the whole name.
        assert figure["layout"]["meta"]["brief"] == list("1234567")[:count]
        assert figure["data"][0]["customdata"][0][-1] == f"a / {names[count - 1]}: 5"


def test_counts_have_whole_ticks():
    for heights, log, step in ((3, 4), False, 1), ((30, 40), False, None), ((30, 40), True, 1):
        chart = Histogram("", Axis(""), Axis("n", log=log), (0.0, 0.5), 0.5, (Bars("a", EFFECT, heights),))
        axis = figure_of(chart)["layout"]["yaxis"]
        assert (axis["tickformat"], axis.get("dtick")) == (",d", step)


def test_a_curve_means_the_same_in_both():
    traces = figure_of(CHARTS["lines"])["data"]
    level, band, dots, line, _ = traces
    assert level["y"] == [0.95, 0.95]
    assert (line["x"], line["y"], line["line"]["color"]) == (list(CURVE.x), list(CURVE.y), EFFECT)
    assert line["marker"]["symbol"] == "circle"
    assert line["line"]["dash"] == "dash"
    assert band["y"][:3] == [1.0, 1.0, pytest.approx(0.3)]
    # On a logarithmic axis a band ends above 0.
    assert min(band["y"]) > 0
    assert (dots["x"], dots["y"]) == ([1.0], [0.7])
    # One click on the legend hides all three.
    assert band["legendgroup"] == dots["legendgroup"] == line["legendgroup"]
    assert [trace["showlegend"] for trace in (band, dots, line)] == [False, False, True]


@pytest.mark.parametrize("letters", [3, 12, 23, 40])
def test_a_legend_of_any_names_is_within_the_picture(letters, tmp_path):
    imread = pytest.importorskip("matplotlib.image").imread
    curves = tuple(Curve(f"{n}" * letters, (0.0, 1.0), (0.0, 1.0), EFFECT) for n in range(8))
    draw(LineChart("", X, Axis("y"), curves, None, None), tmp_path / "p.png", LIGHT)
    picture = imread(tmp_path / "p.png")
    for edge in (picture[:, :4], picture[:, -4:], picture[-4:]):
        assert (edge == picture[0, 0]).all()
