"""The regression of ``fit-gamma``, which ``diagnose`` repeats: the columns of X, their layers, the penalty's form."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalprune.config import FitGammaConfig
from causalprune.pruning.groups import group_ids
from causalprune.solver.features import FeatureSource
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import SolverOptions
from causalprune.trajectory import RecordingReader


def columns_of(
    config: FitGammaConfig, reader: RecordingReader
) -> tuple[FeatureSource, list[tuple[str, int, int]] | None, int]:
    """The columns of X.

    Returns:
        The columns; (name, first column, stop) of each layer if each is fitted by itself; columns per parameter.
    """
    lags = config.lags if config.lags is not None else int(reader.info.momentum > 0)
    num_lags = 3 if lags else 1
    # The group of each unpruned parameter, in the order of the parameters.
    groups = None
    if config.granularity != "parameter":
        groups, _ = group_ids(reader.index, config.granularity, reader.active)
    source = FeatureSource(reader, lags=1 if lags else 0, groups=groups, lr_scale=divides_by_lr(config))
    if config.scope == "global":
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


def penalty_of(config: FitGammaConfig) -> dict[str, Any]:
    """The form of the penalty, without its strength: arguments of :class:`causalprune.solver.problem.LassoProblem`."""
    return {
        "l1_ratio": config.l1_ratio,
        "sign": 1 if config.positive else -1 if config.negative else 0,
        "normalize": "column" if config.normalize == "column" else "none",
    }


def divides_by_lr(config: FitGammaConfig) -> bool:
    """Whether the columns are Δθ²/η² instead of Δθ²."""
    solver: Solver = SOLVERS.load(config.solver)
    return config.normalize == "lr" or solver.divides_by_lr(SolverOptions(preset=config.preset))
