"""What a report found, in sentences: how much can be pruned at which cost, and whose score holds out longest."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from causalprune.analysis.report.phase import PhaseShift
from causalprune.analysis.report.series import Block, Series
from causalprune.base.options import setting_texts
from causalprune.base.specs import Headline
from causalprune.base.units import listed, percent

POINT, SHARE = 0.01, 0.05
"""A score that is lost without much harm: one point of a percentage, or a twentieth of what others have over guessing.
"""


def sweep_findings(blocks: Sequence[Block]) -> list[str]:
    """Sentences on a sweep: what can be pruned almost for nothing, and where the scores fall.

    Args:
        blocks: At least one, with at least one row.
    """
    curves = [(_name(series, block, blocks), series, block) for block in blocks for series in block.series]
    return [sentence for sentence in (_almost_free(curves), _holds_out(curves)) if sentence]


def change_text(before: float, after: float, headline: Headline) -> str:
    """From what to what a score went, and the difference, in points of a percentage."""
    difference = difference_text(before, after, headline)
    return f"from {headline.shown(before)} to {headline.shown(after)} ({difference})"


def difference_text(before: float, after: float, headline: Headline) -> str:
    """The difference of two scores, in points of a percentage."""
    difference = f"{100 * (after - before):+.2f} points" if headline.percent else f"{after - before:+.3g}"
    return difference.replace("-", "−")


def _almost_free(curves: Sequence[tuple[str, Series, Block]]) -> str:
    """The highest sparsity that costs next to nothing; of several criteria the one with the better score there."""
    found: list[tuple[float, float, str, float, float]] = []
    lowest: list[tuple[float, str, float, float, float]] = []
    for name, series, block in curves:
        dense, headline = block.dense("dense"), block.headline
        if not dense:
            continue
        before = mean(dense)
        floor = headline.height(mean(row["guessing"] for row in series.rows))
        allowed = POINT if headline.percent else SHARE * (headline.height(before) - floor)
        for sparsity in series.sparsities:
            values = series.values("score", sparsity)
            if not values or sparsity == 0:
                continue
            after = mean(values)
            lost = headline.height(before) - headline.height(after)
            if lost <= allowed:
                found.append((sparsity, headline.height(after), name, before, after))
            lowest.append((lost, name, sparsity, before, after))
    headline = curves[0][2].headline
    if found:
        sparsity, _, name, before, after = max(found)
        change = change_text(before, after, headline)
        return f"{name} prunes {percent(sparsity)} % of the weights and the {headline.label} goes {change}."
    if lowest:
        _, name, sparsity, before, after = min(lowest)
        return (
            f"No setting keeps the {headline.label}; best: {name} at {percent(sparsity)} % pruned, "
            f"{headline.shown(before)} → {headline.shown(after)} ({difference_text(before, after, headline)})."
        )
    return ""


def _holds_out(curves: Sequence[tuple[str, Series, Block]]) -> str:
    shifts = [(name, series.phase_shift()) for name, series, _ in curves]
    falling = sorted(
        ((shift, name) for name, shift in shifts if isinstance(shift, PhaseShift)),
        key=lambda one: one[0].sparsity,
        reverse=True,
    )
    beyond = [name for name, shift in shifts if isinstance(shift, str) and shift.startswith("beyond")]
    what = f"half of the {curves[0][2].headline.label} above guessing"
    if beyond:
        highest = percent(max(s for _, series, _ in curves for s in series.sparsities))
        said = f"Up to {highest} % pruned, {what} is kept by {listed(beyond)}"
        return said + (f"; {_fallen(*falling[0])}." if falling else ".")
    if not falling:
        return ""
    first = f"{falling[0][1]} holds out longest: {what} is lost at {_place(falling[0][0])}"
    if len(falling) == 1:
        return f"{first}." if len(curves) > 1 else f"With {falling[0][1]}, {what} is lost at {_place(falling[0][0])}."
    (best, _), (second, name) = falling[0], falling[1]
    near = best.low is not None and second.high is not None and second.high >= best.low
    unknown = best.low is None or second.high is None
    doubt = ", which is within one standard deviation" if near else "; of one seed, nobody knows the spread" * unknown
    return f"{first}, {name} at {_place(second)}{doubt}."


def _fallen(shift: PhaseShift, name: str) -> str:
    return f"{name} loses it at {_place(shift)}"


def _place(shift: PhaseShift) -> str:
    if shift.undetermined:
        return f"{percent(shift.sparsity, 2)} % pruned (by {shift.seeds} of {shift.curves} seeds)"
    if shift.low is None or shift.high is None:
        return f"{percent(shift.sparsity, 2)} % pruned"
    return f"{percent(shift.sparsity, 2)} % pruned (one deviation {percent(shift.low, 2)} to {percent(shift.high, 2)})"


def _name(series: Series, block: Block, blocks: Sequence[Block]) -> str:
    if len(blocks) == 1:
        return series.criterion
    return f"{series.criterion} with {', '.join(setting_texts(block.settings))}"
