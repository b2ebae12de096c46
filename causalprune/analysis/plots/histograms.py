"""Distributions of a sweep: histograms of γ, KKT scores and eigenvalues; heat maps of layers and of overlaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.colors import BLUE, ORANGE
from causalprune.analysis.plots.figures import INK, count, figure, label, panel, patch, save
from causalprune.analysis.report.phase import decades
from causalprune.analysis.report.series import Series
from causalprune.base.units import percent

MAX_ANNOTATED_LAYERS = 24


def plot_gamma(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the histogram of log₁₀|γ| over the nonzero coefficients, by sign, summed over fits."""
    with panel(path) as axes:
        total = sum(s["total"] for s in summaries)
        nonzero = sum(s["nonzero"] for s in summaries)
        bins: dict[float, npt.NDArray[np.int64]] = {}
        for summary in summaries:
            edges = summary.get("log10_edges", [])
            for edge, negative, positive in zip(
                edges, summary.get("negative", []), summary.get("positive", []), strict=False
            ):
                bins.setdefault(round(edge, 3), np.zeros(2, dtype=np.int64))[:] += (negative, positive)
        if bins:
            left = np.array(sorted(bins))
            negative, positive = np.array([bins[e] for e in sorted(bins)]).T
            width = 0.125
            axes.bar(left, negative, width, align="edge", color=BLUE)
            axes.bar(left, positive, width, bottom=negative, align="edge", color=ORANGE)
            handles = [patch(BLUE, "γ < 0: the loss falls"), patch(ORANGE, "γ > 0: the loss rises")]
            axes.legend(handles=handles, frameon=False, fontsize=9)
            axes.set_ylim(0, 1.25 * float((negative + positive).max()))
        axes.set(xlabel="log₁₀ |γ|", ylabel="coefficients")
        axes.set_title(f"γ: {nonzero:,} of {total:,} coefficients aren't zero")


def plot_correlation(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the KKT scores of the coefficients that are zero: how near each is to entering the fit."""
    with panel(path) as axes:
        edges = np.array(summaries[0]["correlation_edges"])
        counts = np.sum([s["correlation"] for s in summaries], axis=0)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=BLUE)
        if counts.any():
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.7)
        axes.set_xlim(0, 1)
        axes.set(xlabel="|xₖᵀr| / (Tα), 1 where a coefficient enters", ylabel="coefficients with γ = 0")
        axes.set_title("What orders the zeros of γ")


def plot_density(spectra: Sequence[tuple[str, str, Mapping[str, Any]]], title: str, path: Path) -> None:
    """Draw spectral densities on a logarithmic axis, because all but a few eigenvalues are near 0.

    Args:
        spectra: Name, color and spectrum of each network; at least one has a density, and the legend names the others.
        title: Title of the picture.
        path: PNG file to write.
    """
    with panel(path) as axes:
        top = 0.0
        for name, color, spectrum in spectra:
            at, density = np.array(spectrum["density_at"]), np.array(spectrum["density"])
            said = "" if density.size else f": none of {spectrum['dimension']:,} parameters"
            axes.plot(at, density, color=color, linewidth=1.4, label=label(name, 24) + said)
            top = max(top, float(density.max(initial=0)))
        axes.set_yscale("log")
        axes.set_ylim(1e-6 * top, 3 * top)
        # Linear near 0, where most eigenvalues lie, so that one sharp network doesn't flatten the others.
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlabel="eigenvalue of the Hessian", ylabel="density")
        axes.set_title(title, fontsize=10.5)
        axes.legend(loc="upper right", fontsize=9, frameon=False)


def plot_layers(series: Series, path: Path) -> None:
    """Draw how much of each layer is pruned at each sparsity, as a mean over the seeds."""
    sparsities, layers = series.sparsities, series.rows[0]["layers"]
    values = np.array(
        [[mean(row["layers"][i]["sparsity"] for row in series.at(s)) for s in sparsities] for i in range(len(layers))]
    )
    rows = len(layers)
    drawing = figure(6.2, 1.3 + 0.3 * min(max(rows, 3), MAX_ANNOTATED_LAYERS))
    axes = drawing.subplots()
    # The color follows the decades, because 99 % and 99.9 % are as far apart as 90 % and 99 %.
    shade = decades(np.minimum(values, 0.9999))
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=4, aspect="auto", interpolation="nearest")
    if rows <= MAX_ANNOTATED_LAYERS:
        for (y, x), value in np.ndenumerate(values):
            color = "white" if shade[y, x] > 2 else INK
            axes.text(x, y, _cell(value), ha="center", va="center", fontsize=8, color=color)
        names = [
            f"{label(str(layer['name']).removesuffix('.weight'), 20)} ({count(layer['total'])})" for layer in layers
        ]
        axes.set_yticks(range(rows), names)
    else:
        axes.set_ylabel("prunable tensor, first on top")
    axes.set_xticks(range(len(sparsities)), [percent(s) for s in sparsities])
    axes.set_xlabel("pruned in all (%)")
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{label(series.criterion, 24)}: pruned per layer (%)", fontsize=10.5)
    save(drawing, path)


def plot_overlap(names: Sequence[str], jaccard: npt.NDArray[np.floating], sparsity: float, path: Path) -> None:
    """Draw the Jaccard index of the kept weights for each pair of criteria.

    Args:
        names: C names of criteria.
        jaccard: (C, C) Jaccard indices, a mean over the seeds.
        sparsity: The sparsity of the masks.
        path: PNG file to write.
    """
    side = 1.6 + 0.55 * max(len(names), 3)
    drawing = figure(side + 0.9, side)
    axes = drawing.subplots()
    axes.imshow(jaccard, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    for (y, x), value in np.ndenumerate(jaccard):
        color = "white" if value > 0.5 else INK
        axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, color=color)
    shown = [label(name, 14) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), shown)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    kept = 1 - sparsity
    axes.set_title(f"{percent(sparsity)} % pruned; by chance {kept / (2 - kept):.2f}", fontsize=10.5)
    save(drawing, path)


def _cell(sparsity: float) -> str:
    """A sparsity in percent with few digits, because a cell has little room."""
    return percent(sparsity, 0 if sparsity < 0.9 or sparsity == 1 else 1 if sparsity < 0.99 else 2)
