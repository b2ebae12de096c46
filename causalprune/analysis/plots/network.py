"""A picture that compares a pruned network with the dense one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causalprune.analysis.plots.colors import BLUE, GRAY, ORANGE
from causalprune.analysis.plots.figures import INK, count, figure, label, patch, save, style
from causalprune.base.specs import ACCURACY, Headline
from causalprune.base.units import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED_LAYERS = 24


def plot_evaluation(evaluation: Mapping[str, Any], path: Path) -> None:
    """Draw score and cost of the pruned and the dense network, and the sparsity of each layer.

    Args:
        evaluation: The field ``evaluation`` of the result of ``evaluate``, with at least one layer.
        path: PNG file to write, atomically.

    Raises:
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    layers = evaluation["layers"]
    drawing = figure(7, max(3.3, 1.4 + 0.2 * min(len(layers), MAX_NAMED_LAYERS)))
    comparison, sparsities = drawing.subplots(1, 2, width_ratios=[4, 5])
    _draw_layers(sparsities, layers)
    _draw_comparison(comparison, evaluation)
    save(drawing, path)


def _draw_comparison(axes: Axes, evaluation: Mapping[str, Any]) -> None:
    """Draw bars of score, weights and FLOPs for the dense and the pruned network."""
    style(axes)
    dense = evaluation["reference"] or {}
    headline = Headline.of(evaluation)
    score, name = headline.metric, "top-1\naccuracy" if headline == ACCURACY else headline.label.replace(" ", "\n")
    total = sum(layer["total"] for layer in evaluation["layers"])
    kept = sum(layer["kept"] for layer in evaluation["layers"])
    flops, dense_flops = evaluation["flops_theoretical"], evaluation["flops_dense"]

    def show(value: float | None) -> str:
        # There is no R² if all test targets are equal.
        return "none" if value is None else f"{100 * value:.1f} %" if headline.percent else f"{value:.3f}"

    rows = [
        (
            name,
            _length(evaluation[score], dense, headline),
            _length(dense.get(score), dense, headline),
            show(evaluation[score]),
            show(dense[score]) if dense else "",
        ),
        ("prunable\nweights", kept / total, 1.0, f"{count(kept)}", f"{count(total)}"),
        ("FLOPs\n(theoretical)", flops / max(1, dense_flops), 1.0, f"{count(flops)}", f"{count(dense_flops)}"),
    ]
    for y, (_, pruned_value, dense_value, pruned_text, dense_text) in enumerate(rows):
        bars = ((dense_value, dense_text, -0.2, GRAY), (pruned_value, pruned_text, 0.2, BLUE))
        for value, text, offset, color in bars:
            width = max(value or 0.0, 0.0)
            axes.barh(y + offset, width, height=0.36, color=color)
            _write(axes, text, (width, y + offset), 9)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.32)
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.tick_params(axis="y", length=0)
    handles = [patch(GRAY, "dense"), patch(BLUE, "pruned")]
    axes.legend(handles=handles, frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=2, fontsize=9)
    axes.set_title(f"{label(evaluation['model'], 16)} on {label(evaluation['dataset'], 16)}")


def _length(value: float | None, dense: Mapping[str, Any], headline: Headline) -> float | None:
    """The length of a score's bar: of a perplexity, which has no upper end, the part that the dense one is of it."""
    return dense.get(headline.metric, value) / value if value and headline.falling else value


def _draw_layers(axes: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    """Draw one horizontal bar per tensor: how much of it is pruned."""
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
        for row, (value, left) in enumerate(zip(sparsity, kept, strict=True)):
            _write(axes, f"{percent(value, 1)} %  ({count(left)} left)", (1, row), 8)
    else:
        axes.set_ylabel("prunable tensor")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_title(f"pruned per layer, {percent(overall, 1)} % in all (line)")


def _write(axes: Axes, text: str, end: tuple[float, float], fontsize: int) -> None:
    """Write to the right of the end of a bar."""
    axes.annotate(text, end, (4, 0), textcoords="offset points", va="center", color=INK, fontsize=fontsize)
