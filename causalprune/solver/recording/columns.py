"""The regression over a recording: columns of X, (name, first, stop) of each layer, form of the penalty, units of γ."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalprune.base.errors import MismatchError
from causalprune.solver.features import FeatureSource
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import SolverOptions
from causalprune.solver.recording.options import FitOptions
from causalprune.solver.source import Float64
from causalprune.trajectory import RecordingReader
from causalprune.trajectory.column_groups import group_ids


def columns_of(
    options: FitOptions, reader: RecordingReader
) -> tuple[FeatureSource, list[tuple[str, int, int]] | None, int]:
    """The columns of X.

    Returns:
        The columns; (name, first column, stop) of each layer if each is fitted by itself; columns per parameter.

    Raises:
        MismatchError: Columns to be divided by a learning rate that changed, or was 0; or lags of held steps.
    """
    if divides_by_lr(options):
        _require_one_lr(reader)
    lags = options.lags if options.lags is not None else int(reader.info.momentum > 0)
    if lags and reader.info.held:
        raise MismatchError(
            f"recording {reader.name}",
            expected="steps that follow each other, for `lags=1`",
            found="held ones",
            remedy="leave `lags` out",
        )
    num_lags = 3 if lags else 1
    # The group of each unpruned parameter, in the order of the parameters.
    groups = None
    if options.granularity != "parameter":
        groups, _ = group_ids(reader.index, options.granularity, reader.active)
    source = FeatureSource(reader, lags=1 if lags else 0, groups=groups, lr_scale=divides_by_lr(options))
    if options.scope == "global":
        return source, None, num_lags
    ranges, first, seen = [], 0, 0
    for entry in reader.index:
        count = members = int(reader.active[entry.offset : entry.stop].sum())
        if groups is not None:
            count = len(np.unique(groups[seen : seen + members]))
        if count:
            ranges.append((entry.name, first * num_lags, (first + count) * num_lags))
        first, seen = first + count, seen + members
    return source, ranges, num_lags


def penalty_of(options: FitOptions) -> dict[str, Any]:
    """The form of the penalty, without its strength: arguments of :class:`causalprune.solver.problem.LassoProblem`."""
    return {
        "l1_ratio": options.l1_ratio,
        "sign": 1 if options.positive else -1 if options.negative else 0,
        "normalize": "column" if options.normalize == "column" else "none",
    }


def divides_by_lr(options: FitOptions) -> bool:
    """Whether the columns are Δθ²/η² instead of Δθ²."""
    solver: Solver = SOLVERS.load(options.solver)
    return options.normalize == "lr" or solver.divides_by_lr(SolverOptions(preset=options.preset))


def per_squared_delta(gamma: Float64, options: FitOptions, reader: RecordingReader) -> Float64:
    """γ per Δθ², also where the columns of the fit were Δθ²/η²."""
    if not divides_by_lr(options):
        return gamma
    scaled: Float64 = gamma / reader.learning_rates.distinct[0] ** 2
    return scaled


def _require_one_lr(reader: RecordingReader) -> None:
    lr = reader.learning_rates.distinct
    if len(lr) > 1 or not np.all(lr > 0):
        raise MismatchError(
            f"recording {reader.name}",
            expected="one learning rate above 0, to divide the columns by its square",
            found=f"{lr.min():g} to {lr.max():g}" if len(lr) > 1 else f"{lr[0]:g}",
            remedy="use `normalize=none` or `normalize=column`",
        )
