"""Pictures of a sweep, each a PNG file of one panel, so that a page can set them side by side or below each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from causalprune.evaluation.figures import (
    CYCLE,
    GREY,
    INK,
    count,
    figure,
    label,
    legend_below,
    patch,
    plain_logarithm,
    save,
    style,
)
from causalprune.evaluation.phase import decades
from causalprune.evaluation.series import Block, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 6.2, 4.2
MAX_ANNOTATED_LAYERS = 24
_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
_MARKERS = "osD^vPX*"


def colour_of(criteria: Sequence[str]) -> dict[str, str]:
    """One colour a criterion, the same in all pictures of a page."""
    return {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(criteria)}


def plot_curves(block: Block, key: str, colours: Mapping[str, str], path: Path) -> None:
    """Draw a metric against the percent pruned: mean, one standard deviation, every seed, the dense network.

    Args:
        block: The rows.
        key: ``score`` or ``loss``.
        colours: By criterion.
        path: PNG file to write.
    """
    drawing = figure(WIDTH, HEIGHT)
    axes = drawing.subplots()
    style(axes)
    percent = key == "score" and block.metric == "top1"
    scale = 100 if percent else 1
    dense = block.dense("dense" if key == "score" else f"dense_{key}")
    if dense:
        axes.axhline(scale * mean(dense), color=GREY, linewidth=1.4, linestyle="--", label="not pruned", zorder=1)
    for number, series in enumerate(block.series):
        sparsity, middle, spread = series.curve(key)
        if not sparsity:
            continue
        x, y = decades(sparsity), scale * np.array(middle)
        colour, marker = colours[series.criterion], _MARKERS[number % len(_MARKERS)]
        band = scale * np.array(spread)
        axes.fill_between(x, y - band, y + band, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, y, marker=marker, color=colour, markersize=5, linewidth=1.6, label=label(series.criterion, 24))
        if len(series.seeds) > 1:
            for row in series.rows:
                if row.get(key) is not None:
                    point = (decades(row["sparsity"]), scale * row[key])
                    axes.plot(*point, ".", color=colour, markersize=3, alpha=0.6, markeredgewidth=0)
    axis_towards_all(axes, block.sparsities)
    if key == "loss":
        plain_logarithm(axes)
        axes.set_ylabel("loss on the test split")
    else:
        axes.set_ylabel("accuracy on the test split (%)" if percent else "R² on the test split")
        if not percent:
            # A network that predicts worse than the mean by far would flatten all others.
            axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.5))
    legend_below(drawing)
    save(drawing, path)


def plot_layers(series: Series, path: Path) -> None:
    """Draw how much of every layer is pruned at every sparsity, as a mean over the seeds."""
    sparsities, layers = series.sparsities, series.rows[0]["layers"]
    values = np.array(
        [[mean(row["layers"][i]["sparsity"] for row in series.at(s)) for s in sparsities] for i in range(len(layers))]
    )
    rows = len(layers)
    drawing = figure(WIDTH, 1.3 + 0.3 * min(max(rows, 3), MAX_ANNOTATED_LAYERS))
    axes = drawing.subplots()
    # By the decades that are gone, because 99 % and 99.9 % are as far apart as 90 % and 99 %.
    shade = decades(np.minimum(values, 0.9999))
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=4, aspect="auto", interpolation="nearest")
    if rows <= MAX_ANNOTATED_LAYERS:
        for (y, x), value in np.ndenumerate(values):
            colour = "white" if shade[y, x] > 2 else INK
            axes.text(x, y, _short_percent(value), ha="center", va="center", fontsize=8, color=colour)
        names = [
            f"{label(str(layer['name']).removesuffix('.weight'), 20)} ({count(layer['total'])})" for layer in layers
        ]
        axes.set_yticks(range(rows), names)
    else:
        axes.set_ylabel("prunable tensor, first on top")
    axes.set_xticks(range(len(sparsities)), [f"{100 * s:g}" for s in sparsities])
    axes.set_xlabel("pruned in all (%)")
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{label(series.criterion, 24)}: pruned per layer (%)", fontsize=10.5)
    save(drawing, path)


def plot_gamma(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the histogram of log₁₀|γ| over the coefficients that aren't zero, by sign, summed over fits."""
    drawing = figure(WIDTH, HEIGHT)
    axes = drawing.subplots()
    style(axes)
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
        axes.bar(left, negative, width, align="edge", color=CYCLE[0])
        axes.bar(left, positive, width, bottom=negative, align="edge", color=CYCLE[4])
        handles = [patch(CYCLE[0], "γ < 0: the loss falls"), patch(CYCLE[4], "γ > 0: the loss rises")]
        axes.legend(handles=handles, frameon=False, fontsize=9)
        axes.set_ylim(0, 1.25 * float((negative + positive).max()))
    axes.set_xlabel("log₁₀ |γ|")
    axes.set_ylabel("coefficients")
    axes.set_title(f"γ: {nonzero:,} of {total:,} coefficients aren't zero")
    save(drawing, path)


def plot_correlation(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the dual correlations of the coefficients that are zero: how near each is to entering the fit."""
    drawing = figure(WIDTH, HEIGHT)
    axes = drawing.subplots()
    style(axes)
    edges = np.array(summaries[0]["correlation_edges"])
    counts = np.sum([s["correlation"] for s in summaries], axis=0)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=CYCLE[0])
    if counts.any():
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
    axes.set_xlim(0, 1)
    axes.set_xlabel("|xₖᵀr| / (Tα), 1 where a coefficient enters")
    axes.set_ylabel("coefficients with γ = 0")
    axes.set_title("What orders the zeros of γ")
    save(drawing, path)


def plot_overlap(names: Sequence[str], jaccard: npt.NDArray[np.floating], sparsity: float, path: Path) -> None:
    """Draw the Jaccard index of the kept weights of every pair of criteria.

    Args:
        names: (C,) criteria.
        jaccard: (C, C), a mean over the seeds.
        sparsity: At which.
        path: PNG file to write.
    """
    side = 1.6 + 0.55 * max(len(names), 3)
    drawing = figure(side + 0.9, side)
    axes = drawing.subplots()
    axes.imshow(jaccard, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    for (y, x), value in np.ndenumerate(jaccard):
        colour = "white" if value > 0.5 else INK
        axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
    shown = [label(name, 14) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), shown)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    kept = 1 - sparsity
    axes.set_title(f"{100 * sparsity:g} % pruned; by chance {kept / (2 - kept):.2f}", fontsize=10.5)
    save(drawing, path)


def plot_iterations(block: Block, sparsity: float, colours: Mapping[str, str], path: Path) -> None:
    """Draw the validation loss before each recording, and after the last training, over the iterations."""
    drawing = figure(WIDTH, HEIGHT)
    axes = drawing.subplots()
    style(axes)
    last, final = 0, False
    for number, series in enumerate(block.series):
        lines: dict[int, list[float]] = {}
        for row in series.at(sparsity):
            for place, line in enumerate(row["iterations_log"], start=1):
                if line.get("validation_loss") is not None:
                    lines.setdefault(place, []).append(line["validation_loss"])
                final = final or line["iteration"] is None
        x = np.array(sorted(lines))
        if not x.size:
            continue
        last = max(last, int(x[-1]))
        y = np.array([mean(lines[place]) for place in x])
        band = np.array([np.std(lines[place], ddof=1) if len(lines[place]) > 1 else 0.0 for place in x])
        colour = colours[series.criterion]
        axes.fill_between(x, y - band, y + band, color=colour, alpha=0.15, linewidth=0)
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(x, y, marker=marker, color=colour, markersize=5, linewidth=1.6, label=label(series.criterion, 24))
    ticks = list(range(1, last + 1))
    axes.set_xticks(ticks, [str(t) for t in ticks[:-1]] + (["end"] if final else [str(last)]))
    axes.set_xlabel("before the recording of iteration")
    axes.set_ylabel("validation loss")
    axes.set_title(f"{100 * sparsity:g} % pruned at the end")
    legend_below(drawing)
    save(drawing, path)


def plot_eigenvalues(block: Block, space: str, colours: Mapping[str, str], path: Path) -> None:
    """Draw the largest Hessian eigenvalue against the percent pruned: mean, spread and seeds, and the dense network's.

    Args:
        block: The rows.
        space: ``unpruned`` or ``all`` parameters.
        colours: By criterion.
        path: PNG file to write.
    """
    drawing = figure(WIDTH, HEIGHT)
    axes = drawing.subplots()
    style(axes)
    dense = block.dense_eigenvalues()
    if dense:
        axes.axhline(mean(dense), color=GREY, linewidth=1.4, linestyle="--", label="not pruned", zorder=1)
    values: list[float] = []
    for number, series in enumerate(block.series):
        found = [(s, v) for s in series.sparsities if (v := series.largest_eigenvalues(space, s))]
        if not found:
            continue
        x = decades([s for s, _ in found])
        colour, marker = colours[series.criterion], _MARKERS[number % len(_MARKERS)]
        middle = [mean(v) for _, v in found]
        axes.plot(
            x, middle, marker=marker, color=colour, markersize=5, linewidth=1.6, label=label(series.criterion, 24)
        )
        for place, (_, v) in zip(x, found, strict=True):
            axes.plot([place] * len(v), v, ".", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
            values += v
    axis_towards_all(axes, block.sparsities)
    if values and min(values) > 0:
        plain_logarithm(axes)
    axes.set_ylabel("largest eigenvalue of the Hessian")
    axes.set_title("over the unpruned parameters" if space == "unpruned" else "over all parameters", fontsize=10.5)
    legend_below(drawing)
    save(drawing, path)


def plot_density(spectra: Sequence[tuple[str, str, Mapping[str, Any]]], title: str, path: Path) -> None:
    """Draw spectral densities on a logarithmic axis, because all but a few eigenvalues are near 0.

    Args:
        spectra: Name, colour and spectrum of each.
        title: Of the picture.
        path: PNG file to write.
    """
    drawing = figure(WIDTH, HEIGHT)
    axes = drawing.subplots()
    style(axes)
    top = 0.0
    for name, colour, spectrum in spectra:
        at, density = np.array(spectrum["density_at"]), np.array(spectrum["density"])
        axes.plot(at, density, color=colour, linewidth=1.4, label=label(name, 24))
        top = max(top, float(density.max(initial=0)))
    axes.set_yscale("log")
    axes.set_ylim(1e-6 * top, 3 * top)
    # Linear near 0, where the bulk lies, so that one sharp network doesn't flatten the others.
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlabel("eigenvalue of the Hessian")
    axes.set_ylabel("density")
    axes.set_title(title, fontsize=10.5)
    axes.legend(loc="upper right", fontsize=9, frameon=False)
    save(drawing, path)


def plot_noise(block: Block, sparsity: float, colours: Mapping[str, str], path: Path) -> None:
    """Draw the relative loss under noise on the unpruned parameters, as a mean over the seeds."""
    drawing = figure(WIDTH, HEIGHT)
    axes = drawing.subplots()
    style(axes)
    curves = [("not pruned", GREY, block.dense("dense_noise"))]
    for series in block.series:
        rows = [row["noise"] for row in series.at(sparsity) if row.get("noise")]
        curves.append((series.criterion, colours[series.criterion], rows))
    for name, colour, rows in curves:
        if rows:
            middle = [[r["mean"][i] for r in rows] for i in range(len(rows[0]["sigma"]))]
            shown = [(s, mean(v)) for s, v in zip(rows[0]["sigma"], middle, strict=True) if None not in v]
            x, y = [s for s, _ in shown], [v for _, v in shown]
            axes.plot(x, y, color=colour, marker="o", markersize=4, linewidth=1.6, label=label(name, 24))
    axes.set_xscale("log")
    plain_logarithm(axes)
    axes.set_xlabel("σ of the noise")
    axes.set_ylabel("loss relative to none")
    axes.set_title(f"{100 * sparsity:g} % pruned", fontsize=10.5)
    legend_below(drawing)
    save(drawing, path)


def axis_towards_all(axes: Axes, sparsities: Sequence[float]) -> None:
    """Percent pruned, with each decade towards 100 % as wide as the one before."""
    low, high = float(decades(min(sparsities))), float(decades(max(sparsities)))
    margin = 0.04 * max(high - low, 0.1)
    axes.set_xlim(low - margin, high + margin)
    ticks: list[float] = []
    # What was measured comes first, round numbers where they leave room.
    for tick in (*sorted(set(sparsities)), *_TICKS):
        place = float(decades(tick))
        if low <= place <= high and all(abs(place - decades(t)) > 0.07 * (high - low) for t in ticks):
            ticks.append(tick)
    axes.set_xticks(decades(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set_xlabel("pruned (%), logarithmic towards 100 %")
    axes.grid(axis="both", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)


def _short_percent(fraction: float) -> str:
    if 0 < fraction < 1:
        digits = 0 if fraction < 0.9 else 1 if fraction < 0.99 else 2
        # Never 100 for a layer of which something is left.
        return f"{math.floor(100 * fraction * 10**digits) / 10**digits:.{digits}f}"
    return f"{100 * fraction:.0f}"
