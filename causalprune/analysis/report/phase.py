"""The phase shift: the sparsity at which the score of a network falls, and how sharply it falls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import numpy.typing as npt

from causalprune.base.units import moments, percent

WIDTH_FACTOR = 2 * math.log(9)
"""A logistic function falls from 90 % to 10 % of its height over this many times its scale."""

TOO_FEW = "fewer than three sparsities"
"""Why no curve of a sweep can have a drop."""

DEFINITION = (
    "The score is fitted by f + (c − f)/(1 + exp((x − x₀)/w)) with x = −log₁₀(1 − sparsity), the decades of weights "
    "removed; c is the dense network's score or the curve's highest, whichever is higher, f the score of guessing "
    "(always the most frequent class; 0 for R²), and lower scores count as f. The drop is at x₀, where half of c − f "
    "is lost. Its width is 2·ln 9·w decades: from nine tenths of c − f to one tenth."
)


@dataclass(frozen=True)
class Drop:
    """Where one curve falls.

    Attributes:
        position: x₀ in decades; the sparsity there is 1 − 10^(−x₀).
        width: Decades from 90 % to 10 % of the height.
        inside: Number of sampled sparsities on the slope, between 10 % and 90 % of the height. With fewer than two,
            the width only reflects the spacing of the samples.
    """

    position: float
    width: float
    inside: int


@dataclass(frozen=True)
class PhaseShift:
    """The drops of the curves of several seeds.

    Attributes:
        sparsity: 1 − 10^(−mean x₀).
        low: The sparsity one standard deviation of x₀ below, at least 0; None for one seed.
        high: The same above; None for one seed.
        width: Mean width in decades.
        width_spread: Standard deviation of the width; None for one seed.
        inside: Number of sampled sparsities on the slope, for the seed with the fewest.
        seeds: Number of curves with a drop among the sampled sparsities.
        curves: Number of all curves.
        undetermined: Why the other curves have no drop, and how many; empty if there are none.
    """

    sparsity: float
    low: float | None
    high: float | None
    width: float
    width_spread: float | None
    inside: int
    seeds: int
    curves: int
    undetermined: str


def decades(sparsity: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """−log₁₀(1 − sparsity): 0 for nothing pruned, 1 at 90 %, 2 at 99 %."""
    return -np.log10(1 - np.asarray(sparsity, dtype=np.float64))


def find_drop(sparsity: Sequence[float], score: Sequence[float], *, ceiling: float, floor: float) -> Drop | str:
    """Fit the logistic of :data:`DEFINITION` by least squares.

    Args:
        sparsity: Distinct sparsities in [0, 1).
        score: The score at each.
        ceiling: Score of the dense network.
        floor: Score of the best constant answer, the majority baseline.

    Returns:
        The drop; or in words why none is visible: fewer than three sparsities, or all scores above the half, or all
        below.
    """
    from scipy.optimize import least_squares

    order = np.argsort(sparsity)
    x = decades(np.asarray(sparsity)[order])
    top = max(ceiling, *score)
    if len(x) < 3:
        return TOO_FEW
    if not top > floor:
        return "no better than guessing"
    height = np.clip((np.asarray(score)[order] - floor) / (top - floor), 0, 1)
    if height.min() > 0.5:
        return f"beyond {percent(max(sparsity))} %"
    if height.max() < 0.5:
        return f"below {percent(min(sparsity))} %"
    # The first guess is between the last sample above the half and the next one.
    last = int(np.flatnonzero(height >= 0.5)[-1])
    guess = x[last] if last + 1 == len(x) else (x[last] + x[last + 1]) / 2
    # A scale far below the spacing of the samples is indistinguishable from a step.
    smallest = float(np.diff(x).min()) / 50

    def residuals(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(0.5 * (1 - np.tanh((x - p[0]) / (2 * p[1]))) - height, dtype=np.float64)

    bounds = ([x[0] - 1, smallest], [x[-1] + 1, 3.0])
    scales = {max(scale, smallest) for scale in (0.05, 0.2, 0.6)}
    fits = [least_squares(residuals, (guess, scale), bounds=bounds) for scale in sorted(scales)]
    best = min(fits, key=lambda fit: float(fit.cost))
    inside = int(np.count_nonzero((height > 0.1) & (height < 0.9)))
    return Drop(float(best.x[0]), WIDTH_FACTOR * float(best.x[1]), inside)


def sparsities_to_add(sparsities: Sequence[float], reason: str) -> list[float]:
    """Sparsities at which a drop may be found that wasn't among the sampled ones.

    Args:
        sparsities: Those that were sampled.
        reason: Why there is no drop, as :func:`phase_shift` says it.

    Returns:
        New ones, ascending: beyond the largest, where each keeps half of the weights of the one before, or below the
        smallest. Empty if others wouldn't help.
    """
    low, kept = min(sparsities), 1 - max(sparsities)
    found: list[float] = []
    if "below" in reason:
        found += [low * share for share in (0.25, 0.5, 0.75)]
    if "beyond" in reason or "fewer" in reason:
        found += [1 - kept / 2, 1 - kept / 4, 1 - kept / 8]
    return sorted({round(one, 6) for one in found} - set(sparsities))


def phase_shift(found: Sequence[Drop | str]) -> PhaseShift | str:
    """Mean and spread over the seeds that have a drop; or in words why none has.

    Args:
        found: What :func:`find_drop` returned for each seed, at least one.
    """
    if isinstance(found[0], str) and len(set(found)) == 1:
        return found[0]
    reasons = Counter(one for one in found if isinstance(one, str))
    undetermined = ", ".join(f"{reason} in {count} of {len(found)} seeds" for reason, count in reasons.items())
    drops = [one for one in found if isinstance(one, Drop)]
    if not drops:
        return undetermined
    positions, widths = [d.position for d in drops], [d.width for d in drops]
    middle, spread = mean(positions), moments(positions)["std"]
    return PhaseShift(
        sparsity=1 - 10**-middle,
        low=None if spread is None else max(0.0, 1 - 10 ** -(middle - spread)),
        high=None if spread is None else 1 - 10 ** -(middle + spread),
        width=mean(widths),
        width_spread=moments(widths)["std"],
        inside=min(d.inside for d in drops),
        seeds=len(drops),
        curves=len(found),
        undetermined=undetermined,
    )
