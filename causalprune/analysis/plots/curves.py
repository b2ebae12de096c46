"""Curves of a sweep, one line per criterion: scores and eigenvalues against percent pruned, losses, noise tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from causalprune.analysis.plots.figures import CYCLE, GRAY, label, legend_below, panel, plain_logarithm, save
from causalprune.analysis.report.phase import decades
from causalprune.analysis.report.series import Block
from causalprune.base.units import moments, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class _Curve:
    """The values of several seeds at increasing places.

    Attributes:
        x: Places.
        values: At each place, one per seed; at least one.
        band: Whether one standard deviation is drawn beside the mean.
        dots: Whether the seeds are.
    """

    x: Sequence[float]
    values: Sequence[Sequence[float]]
    band: bool = True
    dots: bool = True


def color_of(criteria: Sequence[str]) -> dict[str, str]:
    """One color per criterion, the same in all pictures of a page."""
    return {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(criteria)}


def plot_curves(block: Block, key: str, colors: Mapping[str, str], path: Path) -> None:
    """Draw a metric against the percent pruned: mean, one standard deviation, every seed, the dense network.

    Args:
        block: The rows.
        key: ``score`` or ``loss``.
        colors: By criterion.
        path: PNG file to write.
    """
    in_percent = key == "score" and block.metric == "top1"
    scale = 100 if in_percent else 1
    curves = {}
    for series in block.series:
        found = [(s, [scale * v for v in values]) for s in series.sparsities if (values := series.values(key, s))]
        curves[series.criterion] = _Curve([float(decades(s)) for s, _ in found], [v for _, v in found])

    def finish(axes: Axes) -> None:
        _axis_towards_all(axes, block.sparsities)
        if key == "loss":
            plain_logarithm(axes)
            axes.set_ylabel("loss on the test split")
            return
        axes.set_ylabel("accuracy on the test split (%)" if in_percent else "R² on the test split")
        if not in_percent:
            # A network that predicts worse than the mean by far would flatten all others.
            axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.5))

    dense = [scale * value for value in block.dense("dense" if key == "score" else f"dense_{key}")]
    _draw(curves, colors, path, finish, dense=mean(dense) if dense else None)


def plot_eigenvalues(block: Block, space: str, colors: Mapping[str, str], path: Path) -> None:
    """Draw the largest Hessian eigenvalue against the percent pruned: mean and seeds, and the dense network's.

    Args:
        block: The rows.
        space: ``unpruned`` or ``all`` parameters.
        colors: By criterion.
        path: PNG file to write.
    """
    curves = {}
    for series in block.series:
        found = [(s, v) for s in series.sparsities if (v := series.largest_eigenvalues(space, s))]
        curves[series.criterion] = _Curve([float(decades(s)) for s, _ in found], [v for _, v in found], band=False)

    def finish(axes: Axes) -> None:
        _axis_towards_all(axes, block.sparsities)
        values = [v for curve in curves.values() for of_seeds in curve.values for v in of_seeds]
        if values and min(values) > 0:
            plain_logarithm(axes)
        axes.set_ylabel("largest eigenvalue of the Hessian")
        axes.set_title("over the unpruned parameters" if space == "unpruned" else "over all parameters", fontsize=10.5)

    dense = block.dense_eigenvalues()
    _draw(curves, colors, path, finish, dense=mean(dense) if dense else None)


def plot_iterations(block: Block, sparsity: float, colors: Mapping[str, str], path: Path) -> None:
    """Draw the validation loss before each recording, and after the last training, over the iterations."""
    curves, final = {}, False
    for series in block.series:
        losses: dict[int, list[float]] = {}
        for row in series.at(sparsity):
            for place, line in enumerate(row["iterations_log"], start=1):
                if line.get("validation_loss") is not None:
                    losses.setdefault(place, []).append(line["validation_loss"])
                final = final or line["iteration"] is None
        places = sorted(losses)
        curves[series.criterion] = _Curve(places, [losses[place] for place in places], dots=False)
    last = max((int(curve.x[-1]) for curve in curves.values() if curve.x), default=0)

    def finish(axes: Axes) -> None:
        ticks = list(range(1, last + 1))
        axes.set_xticks(ticks, [str(t) for t in ticks[:-1]] + (["end"] if final else [str(last)]))
        axes.set_xlabel("before the recording of iteration")
        axes.set_ylabel("validation loss")
        axes.set_title(f"{percent(sparsity)} % pruned at the end")

    _draw(curves, colors, path, finish)


def plot_noise(block: Block, sparsity: float, colors: Mapping[str, str], path: Path) -> None:
    """Draw the relative loss under noise on the unpruned parameters, as a mean over the seeds."""
    found = {s.criterion: [row["noise"] for row in s.at(sparsity) if row.get("noise")] for s in block.series}
    curves = {}
    for name, rows in {"not pruned": block.dense("dense_noise"), **found}.items():
        at = {r: [row["mean"][i] for row in rows] for i, r in enumerate(rows[0]["sigma"] if rows else [])}
        whole = {sigma: values for sigma, values in at.items() if None not in values}
        curves[name] = _Curve(list(whole), list(whole.values()), band=False, dots=False)

    def finish(axes: Axes) -> None:
        axes.set_xscale("log")
        plain_logarithm(axes)
        axes.set_xlabel("σ of the noise")
        axes.set_ylabel("loss relative to none")
        axes.set_title(f"{percent(sparsity)} % pruned", fontsize=10.5)

    _draw(curves, colors, path, finish)


def _draw(
    curves: Mapping[str, _Curve],
    colors: Mapping[str, str],
    path: Path,
    finish: Callable[[Axes], None],
    *,
    dense: float | None = None,
) -> None:
    """One line per criterion with its own color and marker, the dense network's dashed, and a legend below.

    Args:
        curves: By criterion, or ``not pruned``; what is empty isn't drawn.
        colors: By criterion.
        path: PNG file to write.
        finish: Scales and names the axes.
        dense: The dense network's value, the same everywhere.
    """
    drawing, axes = panel()
    if dense is not None:
        axes.axhline(dense, color=GRAY, linewidth=1.4, linestyle="--", label="not pruned", zorder=1)
    for name, curve in curves.items():
        if not curve.x:
            continue
        middle = np.array([mean(v) for v in curve.values])
        if name not in colors:
            axes.plot(curve.x, middle, color=GRAY, linewidth=1.4, linestyle="--", label=name, zorder=1)
            continue
        color, marker = colors[name], _MARKERS[list(colors).index(name) % len(_MARKERS)]
        if curve.band:
            deviation = np.array([moments(v)["std"] or 0.0 for v in curve.values])
            axes.fill_between(curve.x, middle - deviation, middle + deviation, color=color, alpha=0.15, linewidth=0)
        axes.plot(curve.x, middle, marker=marker, color=color, markersize=5, linewidth=1.6, label=label(name, 24))
        dots = [(x, v) for x, values in zip(curve.x, curve.values, strict=True) if len(values) > 1 for v in values]
        if curve.dots and dots:
            x, y = zip(*dots, strict=True)
            axes.plot(x, y, ".", color=color, markersize=4, alpha=0.6, markeredgewidth=0)
    finish(axes)
    legend_below(drawing)
    save(drawing, path)


def _axis_towards_all(axes: Axes, sparsities: Sequence[float]) -> None:
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
    axes.set_xticks(decades(ticks), [percent(t) for t in ticks])
    axes.set_xlabel("pruned (%), logarithmic towards 100 %")
    axes.grid(axis="both", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
