"""Heat maps of a sweep: how much of each layer is pruned, and how much the masks of the criteria overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.figures import INK, count, figure, label, save
from causalprune.analysis.report.phase import decades
from causalprune.analysis.report.series import Series
from causalprune.base.units import percent

MAX_ANNOTATED_LAYERS = 24


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
