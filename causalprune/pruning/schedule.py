"""How the sparsity rises over the pruning iterations."""

from __future__ import annotations

from collections.abc import Callable

from causalprune.errors import UsageError
from causalprune.options import at_least, fraction, one_of

_FORMULAS: dict[str, Callable[[float, float], float]] = {
    "cubic": lambda progress, target: target * (1 - (1 - progress) ** 3),
    "geometric": lambda progress, target: 1 - (1 - target) ** progress,
    "one-shot": lambda _progress, target: target,
}


def target_sparsity(schedule: str, iteration: int, iterations: int, sparsity: float) -> float:
    """Sparsity after iteration i of N on the way to S.

    ``cubic`` is S·(1 − (1 − i/N)³) (Zhu and Gupta, arXiv 1710.01878), ``geometric`` 1 − (1 − S)^(i/N), which removes
    the same share of the remaining weights each time, and ``one-shot`` S from the first iteration on.

    Args:
        schedule: ``cubic``, ``geometric`` or ``one-shot``.
        iteration: i, from 1 to N.
        iterations: N.
        sparsity: S in [0, 1), reached exactly at i = N.

    Raises:
        UsageError: A value outside these.
    """
    for subject, value, expected in (
        ("sparsity schedule", schedule, one_of(tuple(_FORMULAS))(schedule)),
        ("sparsity", sparsity, fraction(sparsity)),
        ("iterations", iterations, at_least(1)(iterations)),
        ("iteration", iteration, None if 1 <= iteration <= iterations else f"a number from 1 to {iterations}"),
    ):
        if expected:
            raise UsageError(subject, expected=expected, found=str(value))
    # The last step is said, not computed, so that rounding can't miss the target.
    return sparsity if iteration == iterations else _FORMULAS[schedule](iteration / iterations, sparsity)
