"""Draws the charts of a report as PNG files, for light and for dark pages."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causalprune.analysis.plots.chart import Axis, Chart, Curve, FallChart, HeatMap, Histogram, LineChart
from causalprune.analysis.plots.colors import GRAY, ink_on
from causalprune.analysis.plots.figures import LIGHT, Theme, figure, label, patch, plain_logarithm, save, style
from causalprune.base.units import scientific

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 24


def draw(chart: Chart, path: Path, theme: Theme = LIGHT) -> None:
    """Draw a chart to a PNG file, atomically.

    Args:
        chart: What to draw.
        path: The file.
        theme: Colors of the page.

    Raises:
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    save(_drawn(chart, theme), path)


@singledispatch
def _drawn(chart: Chart, theme: Theme) -> Figure:  # noqa: ARG001
    raise TypeError(type(chart).__name__)


@_drawn.register(LineChart)
def _lines(chart: LineChart, theme: Theme) -> Figure:
    drawing, axes = _panel(theme)
    if chart.level is not None:
        axes.axhline(chart.level, color=GRAY, linewidth=1.4, linestyle="--", label="not pruned", zorder=1)
    for curve in chart.curves:
        _draw_curve(axes, curve)
    if chart.y.log:
        plain_logarithm(axes)
    if chart.y.small:
        axes.yaxis.set_major_formatter(lambda value, _: scientific(value))
    _set_axes(axes, chart.x, chart.y, chart.title, theme)
    if chart.above is not None:
        axes.set_ylim(bottom=max(axes.get_ylim()[0], chart.above))
    # Below the axes it hides nothing, and finding a free place among many dots would take seconds.
    _legend(drawing, theme)
    return drawing


def _draw_curve(axes: Axes, curve: Curve) -> None:
    y = np.array(curve.y)
    if curve.band:
        half = np.array(curve.band)
        axes.fill_between(curve.x, y - half, y + half, color=curve.color, alpha=0.15, linewidth=0)
    axes.plot(
        curve.x,
        y,
        marker=curve.marker or None,
        linestyle=curve.dash or "none",
        color=curve.color,
        markersize=5 if curve.dash else 3,
        linewidth=1.6,
        alpha=None if curve.dash else 0.5,
        # matplotlib leaves names that begin so out of the legend.
        label=label(curve.name, 2 * LONGEST_NAME) or "_",
    )
    if curve.dots:
        axes.plot(*zip(*curve.dots, strict=True), ".", color=curve.color, markersize=4, alpha=0.6, markeredgewidth=0)


@_drawn.register(Histogram)
def _bars(chart: Histogram, theme: Theme) -> Figure:
    from matplotlib.ticker import MaxNLocator

    drawing, axes = _panel(theme)
    below = np.zeros(len(chart.left))
    for bars in chart.bars:
        axes.bar(chart.left, bars.heights, chart.width, bottom=below, align="edge", color=bars.color)
        below += np.array(bars.heights)
    if chart.y.log and below.any():
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    # Counts; on a logarithmic axis there are ticks at the powers of ten.
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter("")
    _set_axes(axes, chart.x, chart.y, chart.title, theme)
    if len(chart.bars) > 1:
        handles = [patch(bars.color, bars.name) for bars in chart.bars]
        axes.legend(handles=handles, frameon=False, fontsize=9, labelcolor=theme.ink)
        axes.set_ylim(0, 1.25 * float(below.max()))
    return drawing


@_drawn.register(HeatMap)
def _cells(chart: HeatMap, theme: Theme) -> Figure:
    rows = len(chart.shade)
    side = 1.6 + 0.55 * max(rows, 3)
    size = (side + 0.9, side) if chart.square else (6.2, 1.3 + 0.3 * min(max(rows, 3), 24))
    drawing = figure(*size, theme)
    axes = drawing.subplots()
    axes.imshow(
        np.array(chart.shade),
        cmap="Blues",
        vmin=0,
        vmax=1,
        aspect="equal" if chart.square else "auto",
        interpolation="nearest",
    )
    if chart.rows:
        for (y, x), shade in np.ndenumerate(np.array(chart.shade)):
            # The ink is that of the cell, which is as light on a dark page.
            axes.text(x, y, chart.texts[y][x], ha="center", va="center", fontsize=8, color=ink_on(shade))
        axes.set_yticks(range(rows), [label(name, LONGEST_NAME + 8) for name in chart.rows])
    else:
        axes.set_ylabel(chart.down)
    columns = [label(name, 14) for name in chart.named_columns]
    slanted: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if chart.square else {}
    axes.set_xticks(range(len(columns)), columns, **slanted)
    axes.set_xlabel(chart.across)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(label(chart.title, 80), fontsize=10.5)
    _ink(axes, theme)
    return drawing


@_drawn.register(FallChart)
def _falls(chart: FallChart, theme: Theme) -> Figure:
    drawing = figure(6.2, 1.2 + 0.34 * max(len(chart.falls), 2), theme)
    axes = drawing.subplots()
    style(axes, theme)
    for row, fall in enumerate(chart.falls):
        ends = [fall.at - fall.width / 2, fall.at + fall.width / 2]
        axes.plot(ends, [row, row], color=fall.color, linewidth=7, alpha=0.2, solid_capstyle="butt")
        error = fall.deviation or None
        axes.errorbar(
            fall.at, row, xerr=error, fmt=fall.marker, color=fall.color, markersize=6, capsize=3, linewidth=1.6
        )
    axes.set_yticks(range(len(chart.falls)), [label(fall.name, 2 * LONGEST_NAME) for fall in chart.falls])
    axes.set_ylim(len(chart.falls) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    _set_axes(axes, chart.x, Axis(""), chart.title, theme)
    return drawing


def _panel(theme: Theme) -> tuple[Figure, Axes]:
    """A figure with one pair of plain axes, in the size of most pictures of a page."""
    drawing = figure(6.2, 4.2, theme)
    axes = drawing.subplots()
    style(axes, theme)
    return drawing, axes


def _set_axes(axes: Axes, x: Axis, y: Axis, title: str, theme: Theme) -> None:
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    axes.set_title(label(title, 80), fontsize=10.5)
    if x.log:
        axes.set_xscale("log")
    if x.ticks:
        axes.set_xticks([place for place, _ in x.ticks], [text for _, text in x.ticks])
    axes.set_xlim(left=x.low, right=x.high)
    axes.set_ylim(bottom=y.low, top=y.high)
    if x.grid:
        axes.grid(axis="both", color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)
    _ink(axes, theme)


def _ink(axes: Axes, theme: Theme) -> None:
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(theme.ink)


def _legend(drawing: Figure, theme: Theme) -> None:
    handles, names = drawing.axes[0].get_legend_handles_labels()
    if names:
        # Inches: a handle and the space after it, and a letter at this size. A legend wider than the figure is cut.
        widest = 0.7 + 0.075 * max(map(len, names))
        columns = min(4, max(1, int(drawing.get_figwidth() / widest)))
        drawing.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=columns,
            fontsize=9,
            frameon=False,
            labelcolor=theme.ink,
        )
