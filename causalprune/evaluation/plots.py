"""Pictures of a recording and of a pruned network, as PNG files; needs matplotlib, which is an extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from causalprune.errors import DataError
from causalprune.evaluation.figures import BLUE, GREY, INK, ORANGE, count, figure, label, patch, save, style
from causalprune.quantities import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED_LAYERS = 24


def plot_recording(loss_change: npt.NDArray[np.floating], step_norm: npt.NDArray[np.floating], path: Path) -> None:
    """Draw what was recorded at every step: the loss change and the length of the step.

    Args:
        loss_change: (T,) ΔL.
        step_norm: (T,) ‖Δθ‖₂.
        path: PNG file to write, atomically.

    Raises:
        DataError: No steps, unequal lengths, or values that aren't finite.
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    if loss_change.ndim != 1 or loss_change.shape != step_norm.shape or not loss_change.size:
        raise DataError(
            "recording to plot",
            expected="one loss change and one norm for each of at least one step",
            found=f"{loss_change.shape} and {step_norm.shape}",
        )
    if not (np.isfinite(loss_change).all() and np.isfinite(step_norm).all()):
        raise DataError("recording to plot", expected="finite values", found="NaN or infinity")
    drawing = figure(9, 4.6)
    change, norm = drawing.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for axes, values, colour in ((change, loss_change, BLUE), (norm, step_norm, ORANGE)):
        style(axes)
        axes.plot(values, ".", color=colour, markersize=5, alpha=0.5, markeredgewidth=0)
        half = len(values) // 50
        if half:
            middle = np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1)
            axes.plot(
                np.arange(half, len(values) - half),
                np.median(middle, axis=1),
                color=INK,
                linewidth=1.4,
                label=f"median of {2 * half + 1} steps",
            )
    change.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    # A few wild steps shouldn't flatten all the others; matplotlib draws those outside at no place, so say it.
    low, high = np.percentile(loss_change, [0.5, 99.5])
    margin = 0.15 * (high - low)
    outside = int(np.count_nonzero((loss_change < low - margin) | (loss_change > high + margin)))
    if high > low:
        change.set_ylim(min(low - margin, -margin), max(high + margin, margin))
    falls = np.count_nonzero(loss_change < 0) / loss_change.size
    change.set_title(
        f"{loss_change.size:,} steps; the loss falls in {percent(falls, 1)} % of them"
        + (f" ({outside:,} beyond the axis)" if outside else "")
    )
    change.set_ylabel("loss change ΔL")
    norm.set_ylabel("step length ‖Δθ‖")
    norm.set_xlabel("recorded step")
    norm.set_ylim(bottom=0)
    if change.get_legend_handles_labels()[0]:
        change.legend(loc="lower right", fontsize=9, edgecolor="none")
    save(drawing, path)


def plot_layers(layers: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the sparsity of every prunable tensor.

    Args:
        layers: ``name``, ``total`` and ``kept`` of each, first layer first, as ``evaluate`` reports them.
        path: PNG file to write, atomically.

    Raises:
        DataError: No layers.
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    drawing = figure(7, 1.4 + 0.27 * min(len(layers), MAX_NAMED_LAYERS + 4))
    _draw_layers(drawing.subplots(), layers)
    save(drawing, path)


def plot_evaluation(
    evaluation: Mapping[str, Any], path: Path, *, gamma: npt.NDArray[np.floating] | None = None
) -> None:
    """Draw what pruning did: accuracy and cost beside the dense network's, sparsity per layer, and γ if given.

    Args:
        evaluation: The field ``evaluation`` of the result of ``evaluate``.
        path: PNG file to write, atomically.
        gamma: Granger coefficients, of any shape, for a histogram as a third panel.

    Raises:
        DataError: No layers, or γ that isn't finite.
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    layers = evaluation["layers"]
    panels = 2 if gamma is None else 3
    height = max(3.3, 1.4 + 0.2 * min(len(layers), MAX_NAMED_LAYERS))
    drawing = figure(3.5 * panels, height)
    axes = drawing.subplots(1, panels, width_ratios=[4, 5, 4][:panels])
    _draw_layers(axes[1], layers)
    _draw_comparison(axes[0], evaluation)
    if gamma is not None:
        _draw_gamma(axes[2], gamma)
    save(drawing, path)


def _draw_comparison(axes: Axes, evaluation: Mapping[str, Any]) -> None:
    """Bars of score, weights and FLOPs, the pruned network's over the dense one's."""
    style(axes)
    dense = evaluation["reference"] or {}
    score, name = ("top1", "top-1\naccuracy") if evaluation.get("top1") is not None else ("r2", "R²")
    total = sum(layer["total"] for layer in evaluation["layers"])
    kept = sum(layer["kept"] for layer in evaluation["layers"])
    flops, dense_flops = evaluation["flops_theoretical"], evaluation["flops_dense"]

    def show(value: float | None) -> str:
        # Where all test targets are equal there is no R².
        return "none" if value is None else f"{100 * value:.1f} %" if score == "top1" else f"{value:.3f}"

    rows = [
        (name, evaluation[score], dense.get(score), show(evaluation[score]), show(dense[score]) if dense else ""),
        ("prunable\nweights", kept / total, 1.0, f"{count(kept)}", f"{count(total)}"),
        ("FLOPs\n(theoretical)", flops / dense_flops, 1.0, f"{count(flops)}", f"{count(dense_flops)}"),
    ]
    for y, (_, pruned_value, dense_value, pruned_text, dense_text) in enumerate(rows):
        for value, text, offset, colour in (
            (dense_value, dense_text, -0.2, GREY),
            (pruned_value, pruned_text, 0.2, BLUE),
        ):
            width = max(value or 0.0, 0.0)
            axes.barh(y + offset, width, height=0.36, color=colour)
            axes.annotate(
                text, (width, y + offset), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9
            )
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.32)
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.tick_params(axis="y", length=0)
    handles = [patch(GREY, "dense"), patch(BLUE, "pruned")]
    axes.legend(handles=handles, frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=2, fontsize=9)
    axes.set_title(f"{label(evaluation['model'], 16)} on {label(evaluation['dataset'], 16)}")


def _draw_layers(axes: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    """One horizontal bar a tensor: what is pruned of it."""
    if not layers:
        raise DataError("layers to plot", expected="at least one", found="none")
    style(axes)
    total = np.array([layer["total"] for layer in layers], dtype=float)
    kept = np.array([layer["kept"] for layer in layers], dtype=float)
    sparsity, overall = 1 - kept / total, 1 - kept.sum() / total.sum()
    rows = np.arange(len(layers))
    axes.barh(rows, np.ones(len(layers)), height=0.7, color="#EBEBEB")
    axes.barh(rows, sparsity, height=0.7, color=BLUE)
    axes.axvline(overall, color=ORANGE, linewidth=1.6)
    if len(layers) <= MAX_NAMED_LAYERS:
        axes.set_yticks(rows, [label(str(layer["name"]).removesuffix(".weight"), 18) for layer in layers])
        for row, value, left in zip(rows, sparsity, kept, strict=True):
            axes.annotate(
                f"{percent(value, 1)} %  ({count(left)} left)",
                (1, row),
                (4, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                fontsize=8,
            )
    else:
        axes.set_ylabel("prunable tensor")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_title(f"pruned per layer, {percent(overall, 1)} % in all (line)")


def _draw_gamma(axes: Axes, gamma: npt.NDArray[np.floating]) -> None:
    """Histogram of the γ that aren't zero; the share of zeros in the title."""
    values = np.ravel(gamma)
    if not np.isfinite(values).all():
        raise DataError("γ to plot", expected="finite values", found="NaN or infinity")
    style(axes)
    nonzero = values[values != 0]
    if nonzero.size:
        edges = np.histogram_bin_edges(nonzero, bins=41)
        counts, _ = np.histogram(nonzero, edges)
        middle = (edges[1:] + edges[:-1]) / 2
        axes.bar(middle, counts, np.diff(edges), color=np.where(middle < 0, BLUE, ORANGE))
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        # Room above the bars for the legend.
        axes.set_ylim(0.7, 10 * counts.max())
        handles = [patch(BLUE, "γ < 0: the loss falls"), patch(ORANGE, "γ > 0: the loss rises")]
        axes.legend(handles=handles, frameon=False, loc="upper left", fontsize=9)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_xlabel("Granger coefficient γ")
    axes.set_ylabel("parameters")
    axes.set_title(f"γ: {percent(1 - nonzero.size / max(values.size, 1), 1)} % exactly zero")
