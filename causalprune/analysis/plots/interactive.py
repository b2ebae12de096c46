"""Charts for a browser, as the data and the layout that plotly.js draws.

All texts are users' names or made of them. plotly.js reads a few tags in texts, so that ``<``, ``>`` and ``&`` are
escaped here; colors of texts and of the page are the page's own, by its style sheet.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

from causalprune.analysis.plots.chart import Axis, Chart, Curve, FallChart, HeatMap, Histogram, LineChart
from causalprune.analysis.plots.colors import BLUES, ink_on

_GRAY = "#8C8C8C"
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
_MARKERS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "d": "diamond-tall",
    "X": "x",
    "P": "cross",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "*": "star",
    "p": "pentagon",
    "h": "hexagon",
    ".": "circle",
}
_HEIGHT = 400


def plotly_script() -> str | None:
    """The source of plotly.js, MIT license, as its Python package brings it; None if that isn't installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    return str(get_plotlyjs())


@singledispatch
def figure_of(chart: Chart) -> dict[str, Any]:
    """``data`` and ``layout`` of a chart, JSON-ready.

    In ``layout``, ``meta.brief`` has shorter names of the ticks across, for a narrow screen.
    """
    raise TypeError(type(chart).__name__)


@figure_of.register(LineChart)
def _lines(chart: LineChart) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    if chart.level is not None:
        places = [x for curve in chart.curves for x in curve.x]
        ends = [
            min(places, default=0.0) if chart.x.low is None else chart.x.low,
            max(places, default=1.0) if chart.x.high is None else chart.x.high,
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "not pruned",
                "x": ends,
                "y": [chart.level, chart.level],
                "line": {"color": _GRAY, "dash": "dash", "width": 1.5},
                "hovertemplate": "not pruned: %{y:.4~g}<extra></extra>",
            }
        )
    floor = _smallest(chart) if chart.y.log else None
    for number, curve in enumerate(chart.curves):
        data += _curve(curve, f"curve-{number}", floor)
    layout = _layout(chart.title, chart.x, chart.y)
    for name, axis in (("x", chart.x), ("y", chart.y)):
        if axis.log:
            layout[f"{name}axis"] |= _powers([v for trace in data for v in trace[name]], axis)
    if chart.above is not None:
        values = [y for curve in chart.curves for y in curve.y]
        if values and min(values) < chart.above:
            top = max([*values, chart.level or chart.above])
            layout["yaxis"]["range"] = [chart.above, top + 0.05 * (top - chart.above)]
    return {"data": data, "layout": layout}


def _powers(values: Sequence[float], axis: Axis) -> dict[str, Any]:
    """Range and ticks of a logarithmic axis: 1, 2 and 5 of each decade, over many decades powers of ten only."""
    positive = [value for value in values if value > 0]
    low = axis.low or min(positive, default=1.0)
    high = axis.high or max(positive, default=1.0)
    margin = 0.05 * max(math.log10(high / low), 0.2)
    steps = (1, 2, 5) if high < 300 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return {
        "range": [math.log10(low) - margin, math.log10(high) + margin],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _smallest(chart: LineChart) -> float:
    """What a band on a logarithmic axis ends at where it would go below 0."""
    positive = [y for curve in chart.curves for y in curve.y if y > 0]
    return min(positive, default=1.0) / 10


def _curve(curve: Curve, group: str, floor: float | None) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    if any(curve.band):
        upper = [y + half for y, half in zip(curve.y, curve.band, strict=True)]
        lower = [y - half for y, half in zip(curve.y, curve.band, strict=True)]
        lower = lower if floor is None else [max(y, floor) for y in lower]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [*curve.x, *reversed(curve.x)],
                "y": [*upper, *reversed(lower)],
                "fill": "toself",
                "fillcolor": _transparent(curve.color, 0.15),
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
                "legendgroup": group,
            }
        )
    if curve.dots:
        x, y = zip(*curve.dots, strict=True)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": list(x),
                "y": list(y),
                "marker": {"color": curve.color, "size": 4, "opacity": 0.6},
                "hoverinfo": "skip",
                "showlegend": False,
                "legendgroup": group,
            }
        )
    mode = "+".join(["lines"] * bool(curve.dash) + ["markers"] * bool(curve.marker)) or "lines"
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": mode,
        "name": _text(curve.name),
        "x": list(curve.x),
        "y": list(curve.y),
        "line": {"color": curve.color, "dash": _DASHES.get(curve.dash, "solid"), "width": 2},
        "legendgroup": group,
        "showlegend": bool(curve.name),
    }
    if curve.marker:
        size, opacity = (8, 1) if curve.dash else (5, 0.5)
        line["marker"] = {
            "color": curve.color,
            "symbol": _MARKERS.get(curve.marker, "circle"),
            "size": size,
            "opacity": opacity,
        }
    if curve.said:
        line |= {"customdata": [_text(said) for said in curve.said], "hovertemplate": "%{customdata}<extra></extra>"}
    return [*traces, line]


@figure_of.register(Histogram)
def _bars(chart: Histogram) -> dict[str, Any]:
    centers = [left + chart.width / 2 for left in chart.left]
    data = [
        {
            "type": "bar",
            "name": _text(bars.name),
            "x": centers,
            "y": list(bars.heights),
            "width": chart.width,
            "marker": {"color": bars.color},
            "hovertemplate": "%{x:.3~g}: %{y:,}<extra></extra>",
            "showlegend": len(chart.bars) > 1,
        }
        for bars in chart.bars
    ]
    layout = _layout(chart.title, chart.x, chart.y)
    heights = [sum(parts) for parts in zip(*(bars.heights for bars in chart.bars), strict=True)]
    # Counts: powers of ten, or whole numbers.
    layout["yaxis"] |= {"tickformat": ",d"} | ({"dtick": 1} if chart.y.log or max(heights, default=0) <= 5 else {})
    return {"data": data, "layout": layout | {"barmode": "stack", "bargap": 0}}


@figure_of.register(HeatMap)
def _cells(chart: HeatMap) -> dict[str, Any]:
    rows = chart.rows or tuple(f"{number}" for number in range(1, len(chart.shade) + 1))
    # By number, because two long names may begin alike, and plotly.js would take equal ones for one row.
    data: list[dict[str, Any]] = []
    cells = {
        "type": "heatmap",
        "x": list(range(len(chart.columns))),
        "y": list(range(len(rows))),
        "z": [list(row) for row in chart.shade],
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[at / (len(BLUES) - 1), color] for at, color in enumerate(BLUES)],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "customdata": [
            [_text(f"{row} / {column}: {text}") for column, text in zip(chart.columns, texts, strict=True)]
            for row, texts in zip(rows, chart.texts, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    data.append(cells)
    if chart.rows:
        places = [(x, y) for y in range(len(rows)) for x in range(len(chart.columns))]
        data.append(
            {
                "type": "scatter",
                "mode": "text",
                "x": [x for x, _ in places],
                "y": [y for _, y in places],
                "text": [_text(chart.texts[y][x]) for x, y in places],
                # A heat map has one color for all of its texts.
                "textfont": {"color": [ink_on(chart.shade[y][x]) for x, y in places]},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    layout = _layout(chart.title, Axis(chart.across), Axis(chart.down if not chart.rows else ""))
    layout["xaxis"] |= {**_named(chart.named_columns, 22), "showgrid": False, "range": [-0.5, len(chart.columns) - 0.5]}
    layout["yaxis"] |= {"range": [len(rows) - 0.5, -0.5], "showgrid": False}
    if chart.brief:
        layout["meta"] = {"brief": list(map(_text, chart.brief))}
    layout["yaxis"] |= _named(chart.rows, 26) if chart.rows else {"showticklabels": False}
    most = 24
    layout["height"] = 120 + (44 if chart.square else 26) * min(max(len(rows), 3), most)
    return {"data": data, "layout": layout}


@figure_of.register(FallChart)
def _falls(chart: FallChart) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for row, fall in enumerate(chart.falls):
        group = f"fall-{row}"
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [fall.at - fall.width / 2, fall.at + fall.width / 2],
                "y": [row, row],
                "line": {"color": _transparent(fall.color, 0.25), "width": 12},
                "hoverinfo": "skip",
                "showlegend": False,
                "legendgroup": group,
            }
        )
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": _text(fall.name),
                "x": [fall.at],
                "y": [row],
                "marker": {"color": fall.color, "symbol": _MARKERS.get(fall.marker, "circle"), "size": 10},
                "error_x": {"type": "data", "array": [fall.deviation or 0], "color": fall.color, "thickness": 2},
                "customdata": [_text(fall.said)],
                "hovertemplate": "%{customdata}<extra></extra>",
                "showlegend": False,
                "legendgroup": group,
            }
        )
    layout = _layout(chart.title, chart.x, Axis(""))
    layout["yaxis"] |= {**_named([fall.name for fall in chart.falls], 30), "range": [len(chart.falls) - 0.4, -0.6]}
    layout["height"] = 110 + 36 * max(len(chart.falls), 2)
    return {"data": data, "layout": layout}


def _layout(title: str, x: Axis, y: Axis) -> dict[str, Any]:
    layout: dict[str, Any] = {"xaxis": _axis(x), "yaxis": _axis(y), "height": _HEIGHT}
    if title:
        layout["title"] = {"text": _text(title)}
    return layout


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {"title": {"text": _text(axis.label)}, "showgrid": axis.grid}
    if axis.ticks:
        places, texts = zip(*axis.ticks, strict=True)
        found |= {"tickvals": list(places), "ticktext": list(map(_text, texts))}
    if axis.low is not None and axis.high is not None and not axis.log:
        found["range"] = [axis.low, axis.high]
    if axis.log:
        found |= {"type": "log"}
    if axis.small:
        # As :func:`causalprune.base.units.scientific` writes them.
        found |= {"exponentformat": "e", "showexponent": "all"}
    return found


def _named(names: Sequence[str], longest: int) -> dict[str, Any]:
    return {"tickvals": list(range(len(names))), "ticktext": [_text(_short(name, longest)) for name in names]}


def _short(name: str, longest: int) -> str:
    return name if len(name) <= longest else "…" + name[1 - longest :]


def _text(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False)


def _transparent(color: str, share: float) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {share})"
