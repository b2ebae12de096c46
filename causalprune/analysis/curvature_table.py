"""The table of implied curvatures and step sizes that comes with a fit of groups, or why there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.curvature import (
    LEVEL,
    MAX_GROUPS,
    STEPS_PER_GROUP,
    ImpliedCurvature,
    implied_curvature,
    step_sizes,
)
from causalprune.base.errors import DataError
from causalprune.base.units import format_bytes
from causalprune.pruning.groups import group_ids
from causalprune.solver.features import FeatureSource
from causalprune.trajectory import RecordingReader

_OTHERS = 1e-3
"""Parameters without columns get a column of their own if they have at least this share of the movement."""

_COPIES = 6
"""How many float64 matrices as large as the columns the estimate needs at once."""


def curvature_table(
    reader: RecordingReader,
    granularity: str,
    weights: npt.NDArray[np.float64] | None,
    *,
    lags: bool,
    memory_bytes: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.float64]]]:
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
    lr = float(reader.steps.lr[0])
    source = FeatureSource(reader, groups=ids)
    columns = source.read(0, source.num_columns).astype(np.float64)
    others, unknown = _others(reader, columns, lr)
    try:
        found = implied_curvature(columns, reader.loss_change, lr, others=others, weights=weights, seed=seed)
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
    remarks = [_remark(found, place, lr) for place in range(len(labels))]
    groups = [
        {"name": name, **{key: _finite(values[place]) for key, values in numbers.items()}, "remark": remarks[place]}
        for place, name in enumerate(labels)
    ]
    table = {
        "estimator": "least squares",
        "learning_rate": lr,
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
    found = reader.info.update_rule.against_curvature(np.unique(reader.steps.lr).tolist(), lags=lags)
    if found:
        return f"it needs plain SGD at one learning rate, stride 1 and same-batch losses; this has {found}"
    if num_groups > MAX_GROUPS:
        return f"{num_groups:,} groups, more than {MAX_GROUPS:,}; choose a coarser granularity"
    if reader.num_rows < STEPS_PER_GROUP * num_groups:
        return _too_few(reader.num_rows, num_groups)
    needed = _COPIES * 8 * reader.num_rows * num_groups
    if needed > memory_bytes:
        return f"it needs {format_bytes(needed)} of memory, more than {format_bytes(memory_bytes)}"
    return ""


def _too_few(rows: int, num_groups: int) -> str:
    return (
        f"{rows:,} steps have no power to tell {num_groups:,} groups apart, and a penalty would only shrink h toward "
        f"2/η; record {STEPS_PER_GROUP} steps per group, or choose a coarser granularity"
    )


def _others(
    reader: RecordingReader, columns: npt.NDArray[np.float64], lr: float
) -> tuple[npt.NDArray[np.float64] | None, bool]:
    """(T,) Σ Δθ² of the parameters without a column, from the norm of the whole gradient; and whether it is unknown."""
    if not reader.active.all():
        # The norm includes the gradients of pruned weights, which don't move.
        return None, True
    recorded = columns.sum(axis=1)
    rest = (lr * reader.steps.grad_norm) ** 2 - recorded
    if (rest < -_OTHERS * recorded).any():
        return None, True
    return (rest.clip(0), False) if rest.sum() > _OTHERS * recorded.sum() else (None, False)


def _remark(found: ImpliedCurvature, place: int, lr: float) -> str:
    if not found.moved[place]:
        return "didn't move"
    if found.collinear[place]:
        return "collinear with others"
    low, high = found.low[place], found.high[place]
    if low > 0 or high < 0:
        return ""
    # At h = 2/η, γ is 0: the group's steps don't change the loss.
    return "no power: from flat to γ = 0" if high >= 2 / lr else "sign unknown"


def _warning(remarks: list[str], *, unknown: bool) -> str:
    said = [f"{sum(r == remark for r in remarks):,} {remark}" for remark in dict.fromkeys(remarks) if remark]
    parts = [f"implied curvature of {len(remarks):,} groups: {', '.join(said)}"] if said else []
    if unknown:
        parts.append("the movement of biases and other parameters without columns is unknown, which biases h downwards")
    return "; ".join(parts)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
