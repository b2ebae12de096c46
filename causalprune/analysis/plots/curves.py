"""Charts of a sweep with one line per criterion: scores, losses, eigenvalues, noise, and where scores fall."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from causalprune.analysis.plots.chart import Axis, Curve, Fall, FallChart, LineChart
from causalprune.analysis.plots.colors import DASHES, GRAY, Look
from causalprune.analysis.report.phase import decades
from causalprune.analysis.report.series import Block, Series
from causalprune.base.options import setting_texts
from causalprune.base.units import mean_and_spread, moments, percent

_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)

Values = Sequence[tuple[float, Sequence[float]]]
"""Increasing places, and at each the values of the seeds, at least one."""


def score_curves(blocks: Sequence[Block], key: str, looks: Mapping[str, Look], title: str = "") -> LineChart:
    """A metric against percent pruned: its mean, one standard deviation, each seed, and the dense network.

    Args:
        blocks: The rows; of several blocks, each has a dash of its own.
        key: ``score`` or ``loss``.
        looks: Color and marker of each criterion.
        title: Title of the chart.
    """
    headline = blocks[0].headline
    in_percent = key == "score" and headline.percent
    scale, form = (100, ".2f") if in_percent else (1, ".4g")
    unit = " %" if in_percent else ""
    curves = [
        _curve(
            _name(series, block, blocks),
            looks[series.criterion],
            [(s, [scale * v for v in series.values(key, s)]) for s in series.sparsities],
            lambda s, text: f"{percent(s)} % pruned: {text}",
            form=form,
            unit=unit,
            dash=DASHES[number % len(DASHES)],
            place=_decades,
        )
        for number, block in enumerate(blocks)
        for series in block.series
    ]
    dense = [scale * v for block in blocks for v in block.dense("dense" if key == "score" else f"dense_{key}")]
    what = f"{headline.label} on the test split" if key == "score" else "loss on the test split"
    logarithmic = key == "loss" or headline.falling
    return LineChart(
        title,
        towards_all([s for block in blocks for s in block.sparsities]),
        Axis(f"{what} (%)" if in_percent else what, log=logarithmic),
        tuple(curve for curve in curves if curve.x),
        mean(dense) if dense else None,
        # A network that predicts far worse than the mean would flatten all others.
        above=None if in_percent or logarithmic else -0.5,
    )


def eigenvalue_curves(block: Block, space: str, looks: Mapping[str, Look]) -> LineChart:
    """The largest Hessian eigenvalue over ``unpruned`` or ``all`` parameters against percent pruned."""
    curves = [
        _curve(
            series.criterion,
            looks[series.criterion],
            [(s, series.largest_eigenvalues(space, s)) for s in series.sparsities],
            lambda s, text: f"{percent(s)} % pruned: {text}",
            banded=False,
            place=_decades,
        )
        for series in block.series
    ]
    dense = block.dense_eigenvalues()
    values = [v for curve in curves for v in (*curve.y, *(dot for _, dot in curve.dots))]
    return LineChart(
        "over the unpruned parameters" if space == "unpruned" else "over all parameters",
        towards_all(block.sparsities),
        Axis("largest eigenvalue of the Hessian", log=bool(values) and min(values) > 0),
        tuple(curve for curve in curves if curve.x),
        mean(dense) if dense else None,
    )


def iteration_curves(block: Block, looks: Mapping[str, Look], sparsity: float) -> LineChart:
    """The validation loss before the recording of each iteration, and after the last training."""
    curves: list[Curve] = []
    final = False
    for series in block.series:
        losses: dict[float, list[float]] = {}
        for row in series.at(sparsity):
            for place, line in enumerate(row["iterations_log"], start=1):
                if line.get("validation_loss") is not None:
                    losses.setdefault(place, []).append(line["validation_loss"])
                final = final or line["iteration"] is None
        found = sorted(losses.items())
        curves.append(_curve(series.criterion, looks[series.criterion], found, lambda _, text: text, dotted=False))
    last = max((int(curve.x[-1]) for curve in curves if curve.x), default=0)
    names = [*map(str, range(1, last)), "end" if final else str(last)]
    return LineChart(
        f"{percent(sparsity)} % pruned at the end",
        Axis("before the recording of iteration", tuple((float(at), text) for at, text in enumerate(names, start=1))),
        Axis("validation loss"),
        tuple(curve for curve in curves if curve.x),
    )


def noise_curves(block: Block, looks: Mapping[str, Look], sparsity: float) -> LineChart:
    """The relative loss under noise on the unpruned parameters, as a mean over the seeds."""
    found = {s.criterion: [row["noise"] for row in s.at(sparsity) if row.get("noise")] for s in block.series}
    curves: list[Curve] = []
    for name, rows in {"not pruned": block.dense("dense_noise"), **found}.items():
        means = zip(*(row["mean"] for row in rows), strict=True)
        sigmas = rows[0]["sigma"] if rows else []
        values = [(s, v) for s, v in zip(sigmas, means, strict=True) if None not in v]
        look = looks.get(name, Look(GRAY, ""))
        dash = "-" if name in looks else "--"
        curves.append(
            _curve(name, look, values, lambda s, text: f"σ = {s:g}: {text}", banded=False, dotted=False, dash=dash)
        )
    return LineChart(
        f"{percent(sparsity)} % pruned",
        Axis("σ of the noise", log=True),
        Axis("loss relative to none", log=True),
        tuple(curve for curve in curves if curve.x),
    )


def fall_chart(blocks: Sequence[Block], looks: Mapping[str, Look]) -> FallChart | None:
    """Where the score of each criterion falls, with its uncertainty and its width; None if it falls in none."""
    falls = []
    for block in blocks:
        for series in block.series:
            shift = series.phase_shift()
            if isinstance(shift, str):
                continue
            look, name = looks[series.criterion], _name(series, block, blocks)
            within = ""
            if shift.low is not None and shift.high is not None:
                within = f", one deviation {percent(shift.low, 2)} to {percent(shift.high, 2)} %"
            said = f"{name}: half is lost at {percent(shift.sparsity, 2)} %{within}; width {shift.width:.2f} decades"
            at = _decades(shift.sparsity)
            deviation = None if shift.high is None else _decades(shift.high) - at
            falls.append(Fall(name, look.color, look.marker, at, deviation, shift.width, said))
    if not falls:
        return None
    sparsities = [s for block in blocks for s in block.sparsities]
    ends = [fall.at + sign * (fall.deviation or 0) for fall in falls for sign in (-1, 1)]
    return FallChart("", towards_all(sparsities, ends, "half of the score is lost at (% pruned)"), tuple(falls))


def towards_all(
    sparsities: Sequence[float], beyond: Sequence[float] = (), label: str = "pruned (%), logarithmic towards 100 %"
) -> Axis:
    """The axis of percent pruned, with equal room for each decade toward 100 %.

    Args:
        sparsities: Those that were measured, which have ticks.
        beyond: Further places that it shows, in decades.
        label: What it measures.
    """
    places = [*map(_decades, sparsities), *(max(place, 0.0) for place in beyond)]
    low, high = min(places), max(places)
    margin = 0.04 * max(high - low, 0.1)
    ticks: list[float] = []
    # Measured sparsities come first, then round numbers where there is room.
    for tick in (*sorted(set(sparsities)), *_TICKS):
        place = _decades(tick)
        if low <= place <= high and all(abs(place - _decades(t)) > 0.07 * (high - low) for t in ticks):
            ticks.append(tick)
    named = tuple((_decades(t), percent(t)) for t in sorted(ticks))
    return Axis(label, named, low=low - margin, high=high + margin, grid=True)


def _decades(sparsity: float) -> float:
    return float(decades(sparsity))


def _name(series: Series, block: Block, blocks: Sequence[Block]) -> str:
    if len(blocks) == 1:
        return series.criterion
    return f"{series.criterion}, {', '.join(setting_texts(block.settings))}"


def _curve(
    name: str,
    look: Look,
    values: Values,
    said: Callable[[float, str], str],
    *,
    form: str = ".4g",
    unit: str = "",
    dash: str = "-",
    banded: bool = True,
    dotted: bool = True,
    place: Callable[[float], float] = float,
) -> Curve:
    """The mean over the seeds at each place that has values, and what the pointer says there."""
    found = [(place(at), of_seeds, at) for at, of_seeds in values if of_seeds]
    texts = []
    for _, of_seeds, at in found:
        middle, spread = moments(of_seeds)["mean"], moments(of_seeds)["std"]
        text = " ".join(filter(None, mean_and_spread(middle, spread, form=form, spread_form=form)))
        seeds = f" ({len(of_seeds)} seeds)" if len(of_seeds) > 1 else ""
        texts.append(f"{name}, {said(at, text)}{unit}{seeds}")
    return Curve(
        name,
        tuple(at for at, _, _ in found),
        tuple(mean(of_seeds) for _, of_seeds, _ in found),
        look.color,
        look.marker,
        dash,
        band=tuple(moments(of_seeds)["std"] or 0.0 for _, of_seeds, _ in found) if banded else (),
        dots=tuple((at, v) for at, of_seeds, _ in found if dotted and len(of_seeds) > 1 for v in of_seeds),
        said=tuple(texts),
    )
