"""Curves of a sweep, one line per criterion: scores, losses, eigenvalues, and noise tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from causalprune.analysis.plots.figures import CYCLE, GRAY, label, panel, plain_logarithm
from causalprune.analysis.report.phase import decades
from causalprune.analysis.report.series import Block
from causalprune.base.units import moments, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class _Curve:
    """The values of one criterion.

    Attributes:
        x: Increasing places.
        values: At each place the values of the seeds, at least one.
        band: Whether to draw a band of one standard deviation around the mean.
        dots: Whether to draw the values of the single seeds.
    """

    x: Sequence[float]
    values: Sequence[Sequence[float]]
    band: bool = True
    dots: bool = True


def color_of(criteria: Sequence[str]) -> dict[str, str]:
    """One color per criterion, the same in all pictures of a page."""
    return {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(criteria)}


def plot_curves(block: Block, key: str, colors: Mapping[str, str], path: Path) -> None:
    """Draw a metric against percent pruned: its mean, one standard deviation, each seed, and the dense network.

    Args:
        block: The rows.
        key: ``score`` or ``loss``.
        colors: Color of each criterion.
        path: PNG file to write.
    """
    in_percent = key == "score" and block.metric == "top1"
    scale = 100 if in_percent else 1
    curves = {}
    for series in block.series:
        found = [(s, [scale * v for v in values]) for s in series.sparsities if (values := series.values(key, s))]
        curves[series.criterion] = _Curve([float(decades(s)) for s, _ in found], [v for _, v in found])
    dense = [scale * value for value in block.dense("dense" if key == "score" else f"dense_{key}")]
    with _drawn(curves, colors, path, dense) as axes:
        _axis_towards_all(axes, block.sparsities)
        if key == "loss":
            plain_logarithm(axes)
            axes.set_ylabel("loss on the test split")
        elif in_percent:
            axes.set_ylabel("accuracy on the test split (%)")
        else:
            axes.set_ylabel("R² on the test split")
            # A network that predicts far worse than the mean would flatten all others.
            axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.5))


def plot_eigenvalues(block: Block, space: str, colors: Mapping[str, str], path: Path) -> None:
    """Draw the largest Hessian eigenvalue against percent pruned: its mean, each seed, and the dense network.

    Args:
        block: The rows.
        space: ``unpruned`` or ``all`` parameters.
        colors: Color of each criterion.
        path: PNG file to write.
    """
    curves = {}
    for series in block.series:
        found = [(s, v) for s in series.sparsities if (v := series.largest_eigenvalues(space, s))]
        curves[series.criterion] = _Curve([float(decades(s)) for s, _ in found], [v for _, v in found], band=False)
    with _drawn(curves, colors, path, block.dense_eigenvalues()) as axes:
        _axis_towards_all(axes, block.sparsities)
        values = [v for curve in curves.values() for of_seeds in curve.values for v in of_seeds]
        if values and min(values) > 0:
            plain_logarithm(axes)
        axes.set_ylabel("largest eigenvalue of the Hessian")
        axes.set_title("over the unpruned parameters" if space == "unpruned" else "over all parameters", fontsize=10.5)


def plot_iterations(block: Block, sparsity: float, colors: Mapping[str, str], path: Path) -> None:
    """Draw the validation loss before the recording of each iteration, and after the last training."""
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
    with _drawn(curves, colors, path) as axes:
        ticks = list(range(1, last + 1))
        axes.set_xticks(ticks, [str(t) for t in ticks[:-1]] + (["end"] if final else [str(last)]))
        axes.set(xlabel="before the recording of iteration", ylabel="validation loss")
        axes.set_title(f"{percent(sparsity)} % pruned at the end")


def plot_noise(block: Block, sparsity: float, colors: Mapping[str, str], path: Path) -> None:
    """Draw the relative loss under noise on the unpruned parameters, as a mean over the seeds."""
    found = {s.criterion: [row["noise"] for row in s.at(sparsity) if row.get("noise")] for s in block.series}
    curves = {}
    for name, rows in {"not pruned": block.dense("dense_noise"), **found}.items():
        at = {r: [row["mean"][i] for row in rows] for i, r in enumerate(rows[0]["sigma"] if rows else [])}
        whole = {sigma: values for sigma, values in at.items() if None not in values}
        curves[name] = _Curve(list(whole), list(whole.values()), band=False, dots=False)
    with _drawn(curves, colors, path) as axes:
        axes.set_xscale("log")
        plain_logarithm(axes)
        axes.set(xlabel="σ of the noise", ylabel="loss relative to none")
        axes.set_title(f"{percent(sparsity)} % pruned", fontsize=10.5)


@contextmanager
def _drawn(
    curves: Mapping[str, _Curve], colors: Mapping[str, str], path: Path, dense: Sequence[float] = ()
) -> Iterator[Axes]:
    """Draw a line per criterion and a legend below; the body sets the scales and labels of the axes.

    Args:
        curves: By criterion, or ``not pruned``; empty ones aren't drawn.
        colors: Color of each criterion.
        path: PNG file to write.
        dense: Values of the dense networks, whose mean is a dashed line.
    """
    with panel(path) as axes:
        if dense:
            axes.axhline(mean(dense), color=GRAY, linewidth=1.4, linestyle="--", label="not pruned", zorder=1)
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
        yield axes
        # Below the axes it hides nothing, and finding a free place among many dots would take seconds.
        axes.figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)


def _axis_towards_all(axes: Axes, sparsities: Sequence[float]) -> None:
    """Make the x axis percent pruned, with equal room for each decade toward 100 %."""
    low, high = float(decades(min(sparsities))), float(decades(max(sparsities)))
    margin = 0.04 * max(high - low, 0.1)
    axes.set_xlim(low - margin, high + margin)
    ticks: list[float] = []
    # Measured sparsities come first, then round numbers where there is room.
    for tick in (*sorted(set(sparsities)), *_TICKS):
        place = float(decades(tick))
        if low <= place <= high and all(abs(place - decades(t)) > 0.07 * (high - low) for t in ticks):
            ticks.append(tick)
    axes.set_xticks(decades(ticks), [percent(t) for t in ticks])
    axes.set_xlabel("pruned (%), logarithmic towards 100 %")
    axes.grid(axis="both", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
