"""The regression of ``fit-gamma``, which ``diagnose`` repeats: columns of X, weights of rows, form of the penalty."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from causalprune.base.errors import DataError, MismatchError
from causalprune.base.files import require_file
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.pruning.groups import group_ids
from causalprune.solver.features import FeatureSource
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import SolverOptions
from causalprune.solver.source import Float64
from causalprune.trajectory import RecordingReader


def columns_of(
    config: FitGammaConfig, reader: RecordingReader
) -> tuple[FeatureSource, list[tuple[str, int, int]] | None, int]:
    """The columns of X.

    Returns:
        The columns; (name, first column, stop) of each layer if each is fitted by itself; columns per parameter.

    Raises:
        MismatchError: Columns to be divided by a learning rate that changed, or was 0.
    """
    if divides_by_lr(config):
        _require_one_lr(reader)
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


def per_squared_delta(gamma: Float64, config: FitGammaConfig, reader: RecordingReader) -> Float64:
    """γ per Δθ², also where the columns of the fit were Δθ²/η²."""
    if not divides_by_lr(config):
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
            remedy="use --normalize none or column",
        )


def no_causal_reading(reader: RecordingReader, needs: Collection[str] = ("gamma",)) -> str:
    """Say that γ of a recording isn't a cause, where another optimizer than SGD made the steps; empty otherwise.

    Args:
        reader: The recording.
        needs: What is read of it; without γ there is nothing to say.
    """
    if not {"gamma", "dual_correlation"} & set(needs):
        return ""
    return reader.info.update_rule.no_causal_reading(f"recording {reader.path}")


def row_weights(config: FitGammaConfig, reader: RecordingReader) -> Float64 | None:
    """(T,) weights of the recorded steps, from a file of numbers.

    Raises:
        DataError: No such file, no numbers, or not one for each step.
    """
    path = config.row_weights
    if path is None:
        return None
    remedy = "write them with numpy.save or numpy.savetxt"
    require_file(path, expected="a file of numbers", remedy=remedy)
    try:
        loaded = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
        weights = np.asarray(loaded, np.float64)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}", expected="a file of numbers", found=str(error)[:80], remedy=remedy) from error
    if weights.shape != (reader.num_rows,):
        raise DataError(
            f"{path}", expected=f"{reader.num_rows} numbers, one per step", found=f"{weights.shape}", remedy=remedy
        )
    return weights
