"""Charts of one run: how each stage trained, and the loss change of each recorded step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.chart import Axis, Curve, LineChart
from causalprune.analysis.plots.colors import BLUE, DASHES, GRAY, ORANGE
from causalprune.base.units import percent

MAX_DOTS = 4000
"""Steps of a recording that are drawn; of more, evenly spaced ones."""

_COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def history_chart(stages: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], key: str, label: str) -> LineChart:
    """A number of each epoch, one line per stage, in the order in which they trained.

    Args:
        stages: Name of each stage, and its epochs.
        key: ``train_loss`` or ``validation``.
        label: What the number is.
    """
    ends = [0, *accumulate(len(history) for _, history in stages)]
    curves = []
    for number, ((name, history), begins) in enumerate(zip(stages, ends, strict=False)):
        values = tuple(float(line[key]) for line in history)
        texts = tuple(
            f"{name}, epoch {line['epoch']}: {value:.4g}" for line, value in zip(history, values, strict=True)
        )
        color, dash = _COLORS[number % len(_COLORS)], DASHES[number // len(_COLORS) % len(DASHES)]
        marker = "." if len(values) < 3 else ""
        places = tuple(begins + float(line["epoch"]) for line in history)
        curves.append(Curve(name, places, values, color, marker, dash, said=texts))
    return LineChart("", Axis("epochs of training", grid=True), Axis(label, log=key == "train_loss"), tuple(curves))


def loss_change_chart(loss_change: npt.NDArray[np.floating], title: str) -> LineChart:
    """The loss change of each recorded step, and its running median.

    Args:
        loss_change: (T,) ΔL; T is at least 1.
        title: Title of the chart.
    """
    steps = len(loss_change)
    shown = np.unique(np.linspace(0, steps - 1, min(steps, MAX_DOTS)).astype(int))
    dots = Curve(
        "a step",
        tuple(map(float, shown + 1)),
        tuple(map(float, loss_change[shown])),
        BLUE,
        ".",
        "",
    )
    curves = [dots]
    half = steps // 50
    if half:
        width = 2 * half + 1
        middle = np.median(np.lib.stride_tricks.sliding_window_view(loss_change, width), axis=1)
        places = np.unique(np.linspace(0, len(middle) - 1, min(len(middle), MAX_DOTS)).astype(int))
        x, y = tuple(map(float, places + half + 1)), tuple(map(float, middle[places]))
        curves.append(Curve(f"median of {width} steps", x, y, ORANGE))
    curves.append(Curve("", (1.0, float(max(steps, 2))), (0.0, 0.0), GRAY, dash=":"))
    falls = np.count_nonzero(loss_change < 0) / steps
    # A few extreme steps shouldn't flatten all others.
    low, high = np.percentile(loss_change, [0.5, 99.5])
    margin = 0.15 * (high - low)
    ends = (float(min(low - margin, -margin)), float(max(high + margin, margin))) if high > low else (None, None)
    return LineChart(
        f"{title}{steps:,} steps; the loss falls in {percent(falls, 1)} % of them",
        Axis("recorded step", grid=True),
        Axis("loss change ΔL", low=ends[0], high=ends[1], small=True),
        tuple(curves),
    )
