"""Estimate the curvature of the loss that γ implies for each group of parameters, with confidence intervals.

A step Δθ = −η·∇L of plain SGD changes a quadratic loss by ΔL = −‖Δθ‖²/η + ½·Σ_g h_g·x_g, where x_g is the sum of Δθ²
over group g. So γ_g = −1/η + h_g/2 and h_g = 2(γ_g + 1/η), and 1/h_g is the step size that minimizes the loss along
the group's step. An L1 penalty would shrink γ toward 0 and h toward 2/η, so the estimator is least squares, which needs
more steps than groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from causalprune.base.errors import DataError
from causalprune.base.runtime import keyed_seed
from causalprune.solver.source import Float64

LEVEL = 0.95
"""Confidence level of the intervals."""

STEPS_PER_GROUP = 2
"""Fewest steps per group: a bootstrap resample has about 63 % of the steps and must still tell the groups apart."""

MAX_GROUPS = 1024
"""More would take minutes, and need thousands of steps."""

_MOST_RESAMPLES, _LEAST_RESAMPLES = 1000, 200
_BUDGET = 2e11
"""Multiplications to spend on the resamples, as far as the two bounds allow."""

_ESTIMABLE = 1e-3
"""Largest component of a group's coefficient in the null space of the columns for which it is still reported."""


@dataclass(frozen=True, eq=False)
class ImpliedCurvature:
    """Curvature h of G groups.

    Attributes:
        curvature: (G,) h; NaN where the steps don't determine it: the group didn't move, or is collinear with others.
        low: (G,) lower end of the confidence interval.
        high: (G,) upper end.
        moved: (G,) bool, whether any weight of the group moved.
        collinear: (G,) bool, whether only a combination with other groups is determined.
        condition: Condition number of the columns, scaled to unit norm.
        resamples: Number of bootstrap resamples.
        block: Consecutive steps per bootstrap block.
    """

    curvature: Float64
    low: Float64
    high: Float64
    moved: npt.NDArray[np.bool_]
    collinear: npt.NDArray[np.bool_]
    condition: float
    resamples: int
    block: int


def implied_curvature(
    columns: npt.ArrayLike,
    loss_change: Float64,
    lr: float,
    *,
    others: Float64 | None = None,
    weights: Float64 | None = None,
    seed: int = 0,
) -> ImpliedCurvature:
    """Regress ΔL + ‖Δθ‖²/η on ½x by least squares, with bootstrap confidence intervals.

    Successive steps are alike, so the bootstrap draws blocks of T^⅓ consecutive steps on a circle (Politis and Romano
    1992); the intervals are percentiles.

    Args:
        columns: (T, G) x, the sum of Δθ² over each group.
        loss_change: (T,) ΔL on the same minibatch, after the step minus before.
        lr: The learning rate η.
        others: (T,) Σ Δθ² of the parameters that belong to no group, such as biases; None if there are none.
        weights: (T,) weight of each step's squared error; None for equal weights.
        seed: Seed of the bootstrap.

    Raises:
        DataError: Fewer than two steps per group, or no group that moves.
    """
    design = np.asarray(columns, np.float64)
    num_groups = design.shape[1]
    if others is not None:
        design = np.column_stack([design, others])
    rows, width = design.shape
    if rows < STEPS_PER_GROUP * width:
        raise DataError("recorded steps", expected=f"at least {STEPS_PER_GROUP * width}", found=f"{rows}")
    norms = np.linalg.norm(design, axis=0)
    moved = norms > 0
    if not moved[:num_groups].any():
        raise DataError("recorded deltas", expected="weights that move", found="zeros only")
    target = loss_change + design.sum(axis=1) / lr
    unit = design[:, moved] / norms[moved]
    if weights is not None:
        target, unit = target * np.sqrt(weights), unit * np.sqrt(weights)[:, None]
    with threadpool_limits(limits=1, user_api="blas"):
        basis, singular, rotation = np.linalg.svd(unit, full_matrices=False)
        # The columns have the precision of float32.
        rank = int(np.count_nonzero(singular > singular[0] * max(unit.shape) * np.finfo(np.float32).eps))
        basis, back = basis[:, :rank], rotation[:rank].T / singular[:rank]
        unseen = np.linalg.norm(rotation[rank:], axis=0)

        def solve(counts: Float64) -> Float64:
            weighted = basis * counts[:, None]
            solution: Float64 = back @ np.linalg.lstsq(weighted.T @ basis, weighted.T @ target, rcond=None)[0]
            return solution

        estimate = solve(np.ones(rows))
        cost = rows * rank**2
        resamples = int(np.clip(_BUDGET / cost, _LEAST_RESAMPLES, _MOST_RESAMPLES))
        block = max(1, round(rows ** (1 / 3)))
        rng = np.random.default_rng(keyed_seed(seed, "curvature"))
        draws = np.stack([solve(_block_counts(rng, rows, block)) for _ in range(resamples)])
    tails = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tails, 1 - tails], axis=0)
    known = unseen <= _ESTIMABLE

    def of_groups(values: Float64) -> Float64:
        full = np.full(width, np.nan)
        full[moved] = np.where(known, 2 * values / norms[moved], np.nan)
        return full[:num_groups]

    collinear = np.zeros(width, bool)
    collinear[moved] = ~known
    return ImpliedCurvature(
        curvature=of_groups(estimate),
        low=of_groups(low),
        high=of_groups(high),
        moved=moved[:num_groups],
        collinear=collinear[:num_groups],
        condition=float(singular[0] / singular[rank - 1]),
        resamples=resamples,
        block=block,
    )


def step_sizes(curvature: Float64) -> Float64:
    """The step sizes 1/h; NaN where h ≤ 0, because then the quadratic model has no minimum along the step."""
    positive = np.nan_to_num(curvature) > 0
    return np.divide(1.0, curvature, where=positive, out=np.full_like(curvature, np.nan))


def _block_counts(rng: np.random.Generator, rows: int, block: int) -> Float64:
    """(T,) how often the blocks of one resample contain each step, T in all; the last step is followed by the first."""
    starts = rng.integers(0, rows, -(-rows // block))
    drawn = (starts[:, None] + np.arange(block)) % rows
    return np.bincount(drawn.ravel()[:rows], minlength=rows).astype(np.float64)
