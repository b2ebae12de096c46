"""Curves of a sweep, one line per criterion: scores, losses, eigenvalues, and noise tolerance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from causalprune.analysis.plots.colors import GRAY, Look
from causalprune.analysis.plots.figures import label, panel, plain_logarithm
from causalprune.analysis.report.phase import decades
from causalprune.analysis.report.series import Block, Series
from causalprune.base.units import moments, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)

Curve = Sequence[tuple[float, Sequence[float]]]
"""Increasing places, and at each the values of the seeds, at least one."""


def plot_curves(block: Block, key: str, looks: Mapping[str, Look], path: Path) -> None:
    """Draw a metric against percent pruned: its mean, one standard deviation, each seed, and the dense network.

    Args:
        block: The rows.
        key: ``score`` or ``loss``.
        looks: Color and marker of each criterion.
        path: PNG file to write.
    """
    in_percent = key == "score" and block.headline.percent
    scale = 100 if in_percent else 1
    curves = _over_sparsities(block, lambda series, s: [scale * v for v in series.values(key, s)])
    dense = [scale * value for value in block.dense("dense" if key == "score" else f"dense_{key}")]
    with _drawn(curves, looks, path, dense) as axes:
        _axis_towards_all(axes, block.sparsities)
        if key == "loss":
            plain_logarithm(axes)
            axes.set_ylabel("loss on the test split")
            return
        axes.set_ylabel(f"{block.headline.label} on the test split" + (" (%)" if in_percent else ""))
        if block.headline.falling:
            plain_logarithm(axes)
        elif not in_percent:
            # A network that predicts far worse than the mean would flatten all others.
            axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.5))


def plot_eigenvalues(block: Block, space: str, looks: Mapping[str, Look], path: Path) -> None:
    """Draw the largest Hessian eigenvalue against percent pruned: its mean, each seed, and the dense network.

    Args:
        block: The rows.
        space: ``unpruned`` or ``all`` parameters.
        looks: Color and marker of each criterion.
        path: PNG file to write.
    """
    curves = _over_sparsities(block, lambda series, s: series.largest_eigenvalues(space, s))
    with _drawn(curves, looks, path, block.dense_eigenvalues(), band=False) as axes:
        _axis_towards_all(axes, block.sparsities)
        values = [v for curve in curves.values() for _, of_seeds in curve for v in of_seeds]
        if values and min(values) > 0:
            plain_logarithm(axes)
        axes.set_ylabel("largest eigenvalue of the Hessian")
        axes.set_title("over the unpruned parameters" if space == "unpruned" else "over all parameters", fontsize=10.5)


def plot_iterations(block: Block, looks: Mapping[str, Look], sparsity: float, path: Path) -> None:
    """Draw the validation loss before the recording of each iteration, and after the last training."""
    curves: dict[str, Curve] = {}
    final = False
    for series in block.series:
        losses: dict[int, list[float]] = {}
        for row in series.at(sparsity):
            for place, line in enumerate(row["iterations_log"], start=1):
                if line.get("validation_loss") is not None:
                    losses.setdefault(place, []).append(line["validation_loss"])
                final = final or line["iteration"] is None
        curves[series.criterion] = sorted(losses.items())
    last = max((int(curve[-1][0]) for curve in curves.values() if curve), default=0)
    with _drawn(curves, looks, path, dots=False) as axes:
        ticks = list(range(1, last + 1))
        axes.set_xticks(ticks, [str(t) for t in ticks[:-1]] + (["end"] if final else [str(last)]))
        axes.set(xlabel="before the recording of iteration", ylabel="validation loss")
        axes.set_title(f"{percent(sparsity)} % pruned at the end")


def plot_noise(block: Block, looks: Mapping[str, Look], sparsity: float, path: Path) -> None:
    """Draw the relative loss under noise on the unpruned parameters, as a mean over the seeds."""
    found = {s.criterion: [row["noise"] for row in s.at(sparsity) if row.get("noise")] for s in block.series}
    curves = {}
    for name, rows in {"not pruned": block.dense("dense_noise"), **found}.items():
        means = zip(*(row["mean"] for row in rows), strict=True)
        sigmas = rows[0]["sigma"] if rows else []
        curves[name] = [(s, values) for s, values in zip(sigmas, means, strict=True) if None not in values]
    with _drawn(curves, looks, path, band=False, dots=False) as axes:
        axes.set_xscale("log")
        plain_logarithm(axes)
        axes.set(xlabel="σ of the noise", ylabel="loss relative to none")
        axes.set_title(f"{percent(sparsity)} % pruned", fontsize=10.5)


def _over_sparsities(block: Block, values_of: Callable[[Series, float], list[float]]) -> dict[str, Curve]:
    """The curve of each criterion over the decades of weights removed."""
    return {
        series.criterion: [(float(decades(s)), values) for s in series.sparsities if (values := values_of(series, s))]
        for series in block.series
    }


@contextmanager
def _drawn(
    curves: Mapping[str, Curve],
    looks: Mapping[str, Look],
    path: Path,
    dense: Sequence[float] = (),
    *,
    band: bool = True,
    dots: bool = True,
) -> Iterator[Axes]:
    """Draw a line per criterion and a legend below; the body sets the scales and labels of the axes.

    Args:
        curves: By criterion, or ``not pruned``; empty ones aren't drawn.
        looks: Color and marker of each criterion.
        path: PNG file to write.
        dense: Values of the dense networks, whose mean is a dashed line.
        band: Draw a band of one standard deviation around the mean.
        dots: Draw the values of the single seeds, if there are several.
    """
    with panel(path) as axes:
        if dense:
            axes.axhline(mean(dense), color=GRAY, linewidth=1.4, linestyle="--", label="not pruned", zorder=1)
        for name, curve in curves.items():
            if not curve:
                continue
            places, values = zip(*curve, strict=True)
            middle = np.array([mean(v) for v in values])
            if name not in looks:
                axes.plot(places, middle, color=GRAY, linewidth=1.4, linestyle="--", label=name, zorder=1)
                continue
            color, marker = looks[name].color, looks[name].marker
            if band:
                deviation = np.array([moments(v)["std"] or 0.0 for v in values])
                axes.fill_between(places, middle - deviation, middle + deviation, color=color, alpha=0.15, linewidth=0)
            axes.plot(places, middle, marker=marker, color=color, markersize=5, linewidth=1.6, label=label(name, 24))
            points = [(x, v) for x, of_seeds in curve if len(of_seeds) > 1 for v in of_seeds]
            if dots and points:
                axes.plot(*zip(*points, strict=True), ".", color=color, markersize=4, alpha=0.6, markeredgewidth=0)
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
