"""A picture of a path of fits: nonzeros, R² and gap against α; needs matplotlib, which is an extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causalprune.errors import DataError
from causalprune.evaluation.figures import BLUE, INK, ORANGE, figure, save, style


def plot_path(evidence: dict[str, Any], path: Path) -> None:
    """Draw the solutions at all α of a fit.

    Args:
        evidence: Of a fit with several α, as JSON.
        path: PNG file to write, atomically.

    Raises:
        DataError: The fit has one α only.
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    points = evidence["path"]
    if not points:
        raise DataError("fit to plot", expected="a path", found="one alpha", remedy="fit with --alphas N")
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
    for key, (name, colour) in series.items():
        if any(point[key] is not None for point in points):
            fit.plot(share, [point[key] for point in points], ".-", color=colour, label=name)
    fit.axhline(0, color=INK, linewidth=0.8)
    worst = min(point[key] for key in series for point in points if point[key] is not None)
    if worst < -1:
        fit.set_ylim(-1, 1.05)
        fit.set_title(f"R² falls to {worst:.3g}, below the axis", loc="left")
    fit.set_ylabel("R²")
    fit.legend(fontsize=9, edgecolor="none")
    gap.plot(share, [max(point["relative_gap"], 1e-17) for point in points], ".-", color=BLUE)
    gap.set_yscale("log")
    gap.set_ylabel("relative gap")
    gap.set_xscale("log")
    gap.invert_xaxis()
    gap.set_xlabel("α as a share of alpha_max")
    save(drawing, path)
