"""Estimate the curvature of the loss that γ implies for each group of parameters, with confidence intervals.

A step Δθ = −η·∇L of plain SGD changes a quadratic loss by ΔL = −‖Δθ‖²/η + ½·Σ_g h_g·x_g, where x_g is the sum of Δθ²
over group g. So γ_g = −1/η + h_g/2 and h_g = 2(γ_g + 1/η), and 1/h_g is the step size that minimizes the loss along
the group's step. An L1 penalty would shrink γ toward 0 and h toward 2/η, so the estimator is least squares, which needs
more steps than groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError
from causalprune.base.units import format_bytes
from causalprune.solver.features import FeatureSource
from causalprune.solver.source import Float64
from causalprune.trajectory import RecordingReader
from causalprune.trajectory.column_groups import group_ids
from causalprune.trajectory.steps.learning_rates import group_scalars

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

_OTHERS = 1e-3
"""Parameters without columns get a column of their own if they have at least this share of the movement."""

_COPIES = 6
"""How many float64 matrices as large as the columns the estimate needs at once."""


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
    lr: float | Float64,
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
        lr: The learning rate η; one per column, those of ``others`` included, where they differ; infinite if
            ``loss_change`` has no first-order part.
        others: (T,) Σ Δθ² of the parameters that belong to no group, such as biases, or (T, n) for several learning
            rates; None if there are none.
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
    target = loss_change + (design.sum(axis=1) / lr if np.ndim(lr) == 0 else design @ (1 / np.asarray(lr)))
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


def curvature_table(
    reader: RecordingReader,
    granularity: str,
    weights: Float64 | None,
    *,
    lags: bool,
    memory_bytes: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Float64]]:
    """Tabulate curvature h = 2(γ + 1/η) and step size 1/h of each group, with confidence intervals.

    Args:
        reader: The recording.
        granularity: Of the fit; any but ``parameter``.
        weights: (T,) weight of each step's squared error; None for equal weights.
        lags: Whether the fit has lag columns.
        memory_bytes: Upper bound on the memory of the estimate.
        seed: Seed of the bootstrap.

    Returns:
        The table as JSON: ``groups`` with ``name``, ``curvature``, ``low``, ``high``, ``step_size``, ``step_low``,
        ``step_high`` (None if unknown or unbounded) and ``remark``; ``warning``, empty if all curvatures are known with
        a sign; or only ``unavailable``, the reason. And the arrays ``curvature``, ``curvature_low``,
        ``curvature_high`` and ``step_size``, (G,) float64, NaN if unknown.
    """
    ids, labels = group_ids(reader.index, granularity, reader.active)
    reason = _why_unavailable(reader, len(labels), lags=lags, memory_bytes=memory_bytes)
    if reason:
        return {"unavailable": reason}, {}
    rates = reader.rates_in_gamma
    # Each group of weights is part of one tensor, so it is in one parameter group of the optimizer.
    position = np.zeros(len(labels), np.int64)
    if rates.group is not None:
        position[ids] = rates.group
    lr = rates.by_group[0][position]
    source = FeatureSource(reader, groups=ids)
    columns = source.read(0, source.num_columns).astype(np.float64)
    # A held step moves the recorded weights only.
    no_others = None, np.empty(0), False
    others, their_lr, unknown = no_others if reader.info.held else _others(reader, columns, position)
    every = float(lr[0]) if reader.info.groups == () else np.concatenate([lr, their_lr])
    try:
        found = implied_curvature(columns, reader.target, every, others=others, weights=weights, seed=seed)
    except DataError:
        return {"unavailable": _too_few(len(columns), len(labels))}, {}
    numbers = {
        "curvature": found.curvature,
        "low": found.low,
        "high": found.high,
        "step_size": step_sizes(found.curvature),
        "step_low": step_sizes(found.high),
        "step_high": step_sizes(found.low),
    }
    remarks = [_remark(found, place, lr[place]) for place in range(len(labels))]
    groups = [
        {"name": name, **{key: _finite(values[place]) for key, values in numbers.items()}, "remark": remarks[place]}
        for place, name in enumerate(labels)
    ]
    table = {
        "estimator": "least squares",
        "learning_rate": _finite(lr[0]) if len(np.unique(lr)) == 1 else lr.tolist(),
        "level": LEVEL,
        "resamples": found.resamples,
        "steps_per_draw": found.block,
        "condition": found.condition,
        "others": "a column" if others is not None else "unknown" if unknown else "none",
        "groups": groups,
        "warning": _warning(remarks, unknown=unknown),
    }
    stored = {"curvature": "curvature", "curvature_low": "low", "curvature_high": "high", "step_size": "step_size"}
    return table, {name: numbers[key] for name, key in stored.items()}


def _why_unavailable(reader: RecordingReader, num_groups: int, *, lags: bool, memory_bytes: int) -> str:
    """Why γ isn't −1/η + h/2 in this recording, or can't be estimated; empty if it can."""
    found = reader.info.update_rule.against_curvature(reader.rates_in_gamma.extremes, lags=lags)
    if found:
        return f"it needs plain SGD at learning rates that stay, stride 1 and same-batch losses; this has {found}"
    if num_groups > MAX_GROUPS:
        return f"{num_groups:,} groups, more than {MAX_GROUPS:,}; choose a coarser `granularity`"
    if reader.num_rows < STEPS_PER_GROUP * num_groups:
        return _too_few(reader.num_rows, num_groups)
    needed = _COPIES * 8 * reader.num_rows * num_groups
    if needed > memory_bytes:
        return f"it needs {format_bytes(needed)} of memory, more than {format_bytes(memory_bytes)}"
    return ""


def _too_few(rows: int, num_groups: int) -> str:
    return (
        f"{rows:,} steps have no power to tell {num_groups:,} groups apart, and a penalty would only shrink h toward "
        f"2/η; record {STEPS_PER_GROUP} steps per group, or choose a coarser `granularity`"
    )


def _others(
    reader: RecordingReader, columns: Float64, position: npt.NDArray[np.int64]
) -> tuple[Float64 | None, Float64, bool]:
    """The movement of the parameters without a column, from the norm of the gradient of each parameter group.

    Args:
        reader: The recording.
        columns: (T, G) Σ Δθ² of each group of weights.
        position: (G,) its parameter group, as the position among those with columns.

    Returns:
        (T, n) Σ Δθ² of the parameters without a column in the n parameter groups that have some, None if n is 0; their
        (n,) learning rates; and whether it is unknown.
    """
    if not reader.active.all():
        # The norm includes the gradients of pruned weights, which don't move.
        return None, np.empty(0), True
    steps, numbers = reader.steps, reader.learning_rates.numbers
    movements, rates = [], []
    for number in range(max(1, len(reader.info.groups))):
        lr, norm = ("lr", "grad_norm") if not reader.info.groups else group_scalars(number)
        own = position == numbers.index(number) if number in numbers else np.zeros(len(position), bool)
        recorded = columns[:, own].sum(axis=1)
        rest = (steps[lr] * steps[norm]) ** 2 - recorded
        if (rest < -_OTHERS * recorded).any() or np.ptp(steps[lr]):
            return None, np.empty(0), True
        if rest.sum() > _OTHERS * columns.sum():
            movements.append(rest.clip(0))
            rates.append(steps[lr][0])
    return np.stack(movements, axis=1) if movements else None, np.array(rates), False


def _remark(found: ImpliedCurvature, place: int, lr: float) -> str:
    if not found.moved[place]:
        return "didn't move"
    if found.collinear[place]:
        return "collinear with others"
    low, high = found.low[place], found.high[place]
    if low > 0 or high < 0:
        return ""
    # At h = 2/η, γ is 0: the group's steps don't change the loss.
    return "no power: from flat to γ = 0" if high >= 2 / lr > 0 else "sign unknown"


def _warning(remarks: list[str], *, unknown: bool) -> str:
    said = [f"{sum(r == remark for r in remarks):,} {remark}" for remark in dict.fromkeys(remarks) if remark]
    parts = [f"implied curvature of {len(remarks):,} groups: {', '.join(said)}"] if said else []
    if unknown:
        parts.append("the movement of biases and other parameters without columns is unknown, which biases h downwards")
    return "; ".join(parts)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
