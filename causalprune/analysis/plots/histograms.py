"""Charts of distributions: γ, KKT scores and eigenvalues; heat maps of layers and of overlaps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.chart import Axis, Bars, Curve, HeatMap, Histogram, LineChart
from causalprune.analysis.plots.colors import BLUE, ORANGE
from causalprune.analysis.plots.figures import count
from causalprune.analysis.report.phase import decades
from causalprune.base.units import percent

MAX_NAMED_LAYERS = 24


def gamma_summary(gamma: npt.NDArray[np.floating], scores: npt.NDArray[np.floating]) -> dict[str, Any]:
    """Histograms of log₁₀|γ| of the nonzero coefficients, by sign, and of the KKT scores of the others.

    Args:
        gamma: (P,) γ.
        scores: (P,) KKT scores.
    """
    nonzero = gamma[gamma != 0]
    summary: dict[str, Any] = {"total": int(gamma.size), "nonzero": int(nonzero.size)}
    if nonzero.size:
        magnitude = np.log10(np.abs(nonzero))
        low, high = np.floor(magnitude.min() * 2) / 2, np.ceil(magnitude.max() * 2) / 2
        edges = np.linspace(low, high, 1 + max(1, round((high - low) * 8)))
        summary["log10_edges"] = edges.tolist()
        summary["positive"] = np.histogram(magnitude[nonzero > 0], edges)[0].tolist()
        summary["negative"] = np.histogram(magnitude[nonzero < 0], edges)[0].tolist()
    edges = np.linspace(0, 1, 51)
    summary["correlation_edges"] = edges.tolist()
    summary["correlation"] = np.histogram(np.clip(scores[gamma == 0], 0, 1), edges)[0].tolist()
    return summary


def gamma_histogram(summaries: Sequence[Mapping[str, Any]]) -> Histogram:
    """The histogram of log₁₀|γ| over the nonzero coefficients, by sign, summed over fits (:func:`gamma_summary`)."""
    total = sum(s["total"] for s in summaries)
    nonzero = sum(s["nonzero"] for s in summaries)
    bins: dict[float, npt.NDArray[np.int64]] = {}
    for summary in summaries:
        edges = summary.get("log10_edges", [])
        for edge, negative, positive in zip(
            edges, summary.get("negative", []), summary.get("positive", []), strict=False
        ):
            bins.setdefault(round(edge, 3), np.zeros(2, dtype=np.int64))[:] += (negative, positive)
    left = tuple(sorted(bins))
    signs = (("γ < 0: the loss falls", BLUE, 0), ("γ > 0: the loss rises", ORANGE, 1))
    return Histogram(
        f"γ: {nonzero:,} of {total:,} coefficients aren't zero",
        Axis("log₁₀ |γ|"),
        Axis("coefficients"),
        left,
        0.125,
        tuple(Bars(name, color, tuple(float(bins[edge][at]) for edge in left)) for name, color, at in signs),
    )


def kkt_histogram(summaries: Sequence[Mapping[str, Any]]) -> Histogram:
    """The KKT scores of the coefficients that are zero: how near each is to entering the fit."""
    edges = summaries[0]["correlation_edges"]
    counts = np.sum([s["correlation"] for s in summaries], axis=0)
    return Histogram(
        "What orders the zeros of γ",
        Axis("|xₖᵀr| / (Tα), 1 where a coefficient enters", low=0.0, high=1.0),
        Axis("coefficients with γ = 0", log=True, low=0.7),
        tuple(map(float, edges[:-1])),
        float(edges[1] - edges[0]),
        (Bars("γ = 0", BLUE, tuple(map(float, counts))),),
    )


def density_chart(spectra: Sequence[tuple[str, str, Mapping[str, Any]]], title: str) -> LineChart:
    """Spectral densities on a logarithmic axis, because all but a few eigenvalues are near 0.

    Args:
        spectra: Name, color and spectrum of each network; at least one has a density, and the legend names the others.
        title: Title of the chart.
    """
    curves = []
    for name, color, spectrum in spectra:
        at, density = map(tuple, (spectrum["density_at"], spectrum["density"]))
        said = "" if density else f": none of {spectrum['dimension']:,} parameters"
        texts = tuple(f"{name}: {d:.3g} at {x:.3g}" for x, d in zip(at, density, strict=True))
        curves.append(Curve(f"{name}{said}", tuple(map(_near_zero, at)), density, color, said=texts))
    top = max(max(curve.y) for curve in curves if curve.y)
    places = [x for _, _, spectrum in spectra for x in spectrum["density_at"]]
    reach = math.ceil(math.log10(max(1.0, *map(abs, places))))
    powers = [sign * 10.0**power for sign in (-1, 1) for power in range(reach + 1)]
    ticks = sorted([0.0, *(p for p in powers if min(places) <= p <= max(places))])
    return LineChart(
        title,
        # Linear near 0, where most eigenvalues lie, so that one sharp network doesn't flatten the others.
        Axis("eigenvalue of the Hessian", tuple((_near_zero(tick), f"{tick:g}") for tick in ticks)),
        Axis("density", log=True, low=1e-6 * top, high=3 * top),
        tuple(curves),
    )


def _near_zero(value: float) -> float:
    """A scale that is linear near 0 and logarithmic far from it."""
    return math.copysign(math.log10(1 + abs(value)), value)


def layer_map(
    title: str,
    across: str,
    columns: Sequence[str],
    layers: Sequence[Mapping[str, Any]],
    values: npt.ArrayLike,
    brief: Sequence[str] = (),
) -> HeatMap:
    """How much of each layer is pruned.

    Args:
        title: Title of the chart.
        across: What the columns are.
        columns: Names of C columns.
        layers: ``name`` and ``total`` of R layers.
        values: (R, C) sparsities.
        brief: Shorter names of the columns.
    """
    found = np.asarray(values, dtype=np.float64)
    # The color follows the decades, because 99 % and 99.9 % are as far apart as 90 % and 99 %.
    shade = decades(np.minimum(found, 0.9999)) / 4
    named = len(layers) <= MAX_NAMED_LAYERS
    names = [f"{str(layer['name']).removesuffix('.weight')} ({count(layer['total'])})" for layer in layers]
    return HeatMap(
        title,
        across,
        tuple(columns),
        tuple(names) if named else (),
        tuple(map(tuple, shade.tolist())),
        tuple(tuple(_cell(value) for value in row) for row in found.tolist()),
        down="prunable tensor, first on top",
        brief=tuple(brief),
    )


def overlap_map(names: Sequence[str], jaccard: npt.NDArray[np.floating], sparsity: float) -> HeatMap:
    """The Jaccard index of the kept weights for each pair of criteria.

    Args:
        names: C names of criteria.
        jaccard: (C, C) Jaccard indices, a mean over the seeds.
        sparsity: The sparsity of the masks.
    """
    kept = 1 - sparsity
    return HeatMap(
        f"{percent(sparsity)} % pruned; by chance {kept / (2 - kept):.2f}",
        "",
        tuple(names),
        tuple(names),
        tuple(map(tuple, jaccard.tolist())),
        tuple(tuple(f"{value:.2f}" for value in row) for row in jaccard.tolist()),
        square=True,
    )


def _cell(sparsity: float) -> str:
    """A sparsity in percent with few digits, because a cell has little room."""
    return percent(sparsity, 0 if sparsity < 0.9 or sparsity == 1 else 1 if sparsity < 0.99 else 2)
