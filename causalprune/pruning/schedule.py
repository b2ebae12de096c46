"""How the sparsity rises over the pruning iterations."""

from __future__ import annotations

from collections.abc import Callable

from causalprune.base.options import at_least, fraction, require
from causalprune.pruning.names import SPARSITY_SCHEDULES


def target_sparsity(schedule: str, iteration: int, iterations: int, sparsity: float) -> float:
    """The sparsity that iteration i of N prunes to, on the way to S.

    Args:
        schedule: Name in :data:`causalprune.pruning.names.SPARSITY_SCHEDULES`.
        iteration: i, from 1 to N.
        iterations: N.
        sparsity: S in [0, 1), reached exactly at i = N.

    Raises:
        UsageError: An unknown schedule, or a value outside its range.
    """
    require("`sparsity`", sparsity, fraction)
    require("`iterations`", iterations, at_least(1))
    require("`iteration`", iteration, lambda i: None if 1 <= i <= iterations else f"a number from 1 to {iterations}")
    rise: Callable[[float, float], float] = SPARSITY_SCHEDULES.load(schedule)
    # The last step isn't computed, so that rounding can't miss the target.
    return sparsity if iteration == iterations else rise(iteration / iterations, sparsity)


def cubic(progress: float, target: float) -> float:
    """S·(1 − (1 − i/N)³), by Zhu and Gupta, arXiv 1710.01878."""
    return target * (1 - (1 - progress) ** 3)


def geometric(progress: float, target: float) -> float:
    """1 − (1 − S)^(i/N), which removes the same fraction of the remaining weights in each iteration."""
    return float(1 - (1 - target) ** progress)


def one_shot(progress: float, target: float) -> float:
    """S from the first iteration on."""
    del progress
    return target
