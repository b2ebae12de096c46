"""How the sparsity rises over the pruning iterations."""

from __future__ import annotations

from causalprune.base.errors import UsageError
from causalprune.base.options import at_least, fraction
from causalprune.pruning.names import SPARSITY_SCHEDULES


def target_sparsity(schedule: str, iteration: int, iterations: int, sparsity: float) -> float:
    """Sparsity after iteration i of N on the way to S.

    Args:
        schedule: Name in :data:`causalprune.pruning.names.SPARSITY_SCHEDULES`.
        iteration: i, from 1 to N.
        iterations: N.
        sparsity: S in [0, 1), reached exactly at i = N.

    Raises:
        UsageError: A value outside these.
    """
    rise = SPARSITY_SCHEDULES.load(schedule)
    for subject, value, expected in (
        ("sparsity", sparsity, fraction(sparsity)),
        ("iterations", iterations, at_least(1)(iterations)),
        ("iteration", iteration, None if 1 <= iteration <= iterations else f"a number from 1 to {iterations}"),
    ):
        if expected:
            raise UsageError(f"`{subject}`", expected=expected, found=str(value))
    # The last step is said, not computed, so that rounding can't miss the target.
    return sparsity if iteration == iterations else float(rise(iteration / iterations, sparsity))


def cubic(progress: float, target: float) -> float:
    """S·(1 − (1 − i/N)³) (Zhu and Gupta, arXiv 1710.01878)."""
    return target * (1 - (1 - progress) ** 3)


def geometric(progress: float, target: float) -> float:
    """1 − (1 − S)^(i/N), which removes the same share of the remaining weights each time."""
    return 1 - (1 - target) ** progress


def one_shot(progress: float, target: float) -> float:
    """S from the first iteration on."""
    del progress
    return target
