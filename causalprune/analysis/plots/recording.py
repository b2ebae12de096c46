"""Pictures of a recording and of the regularization path of a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.colors import BLUE, ORANGE
from causalprune.analysis.plots.figures import INK, figure, save, style
from causalprune.base.errors import DataError
from causalprune.base.units import percent


def plot_recording(loss_change: npt.NDArray[np.floating], step_norm: npt.NDArray[np.floating], path: Path) -> None:
    """Draw the loss change and the length of each recorded step.

    Args:
        loss_change: (T,) ΔL; T is at least 1.
        step_norm: (T,) ‖Δθ‖₂.
        path: PNG file to write, atomically.

    Raises:
        DataError: Values that aren't finite.
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    if not (np.isfinite(loss_change).all() and np.isfinite(step_norm).all()):
        raise DataError("recording to plot", expected="finite values", found="NaN or infinity")
    drawing = figure(9, 4.6)
    change, norm = drawing.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for axes, values, color in ((change, loss_change, BLUE), (norm, step_norm, ORANGE)):
        style(axes)
        axes.plot(values, ".", color=color, markersize=5, alpha=0.5, markeredgewidth=0)
        half = len(values) // 50
        if half:
            width = 2 * half + 1
            middle = np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
            places = np.arange(half, len(values) - half)
            axes.plot(places, middle, color=INK, linewidth=1.4, label=f"median of {width} steps")
    change.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    # A few extreme steps shouldn't flatten all others; the title tells how many lie outside.
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
    norm.set(ylabel="step length ‖Δθ‖", xlabel="recorded step")
    norm.set_ylim(bottom=0)
    if change.get_legend_handles_labels()[0]:
        change.legend(loc="lower right", fontsize=9, edgecolor="none")
    save(drawing, path)


def plot_path(evidence: dict[str, Any], path: Path) -> None:
    """Draw number of nonzero γ, R² and duality gap for all α of a fit.

    Args:
        evidence: The evidence of a fit with several α, as JSON.
        path: PNG file to write, atomically.

    Raises:
        DataError: The fit has only one α.
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    points = evidence["path"]
    if not points:
        raise DataError("fit to plot", expected="a path", found="one alpha", remedy="fit with `alphas=N`")
    share = [point["alpha"] / evidence["alpha_max"] for point in points]
    drawing = figure(7, 7)
    count, fit, gap = drawing.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    for axes in (count, fit, gap):
        style(axes)
        axes.axvline(evidence["alpha"] / evidence["alpha_max"], color=INK, linewidth=0.8, linestyle=":")
    count.plot(share, [point["num_nonzero"] for point in points], ".-", color=BLUE)
    count.set_ylabel("nonzero γ")
    count.set_title(f"{evidence['num_rows']:,} steps × {evidence['num_columns']:,} columns; dotted: the α of γ")
    series = {"r2": ("R² in sample", BLUE), "r2_held_out": ("R² held out", ORANGE)}
    for key, (name, color) in series.items():
        if any(point[key] is not None for point in points):
            fit.plot(share, [point[key] for point in points], ".-", color=color, label=name)
    fit.axhline(0, color=INK, linewidth=0.8)
    worst = min(point[key] for key in series for point in points if point[key] is not None)
    if worst < -1:
        fit.set_ylim(-1, 1.05)
        fit.set_title(f"R² falls to {worst:.3g}, below the axis", loc="left")
    fit.set_ylabel("R²")
    fit.legend(fontsize=9, edgecolor="none")
    gap.plot(share, [max(point["relative_gap"], 1e-17) for point in points], ".-", color=BLUE)
    gap.set(xscale="log", xlabel="α as a share of alpha_max", yscale="log", ylabel="relative gap")
    gap.invert_xaxis()
    save(drawing, path)
