"""The regression over a recording: columns of X, (name, first, stop) of each layer, form of the penalty, units of γ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import MismatchError
from causalprune.solver.features import FeatureSource
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import SolverOptions
from causalprune.solver.recording.options import FitOptions
from causalprune.solver.source import Float64
from causalprune.trajectory import RecordingReader
from causalprune.trajectory.column_groups import group_ids
from causalprune.trajectory.columns.planned import PlannedRecording


@dataclass(frozen=True, eq=False)
class ColumnForm:
    """What the columns of X are made of.

    Attributes:
        lags: 1 for the three columns of momentum per parameter, else 0.
        groups: The group of each unpruned parameter, in the order of the parameters; None if each is by itself.
        num_groups: How many there are; None if there are none.
        ranges: (name, first column, stop) of each layer if each is fitted by itself.
    """

    lags: Literal[0, 1]
    groups: npt.NDArray[np.int64] | None
    num_groups: int | None
    ranges: list[tuple[str, int, int]] | None

    @property
    def num_lags(self) -> int:
        """Columns per parameter."""
        return 3 if self.lags else 1

    @classmethod
    def of(cls, options: FitOptions, recording: PlannedRecording, subject: str) -> Self:
        """The form that options ask for.

        Args:
            options: Those of the fit.
            recording: What is known of the recording.
            subject: What an error calls it.

        Raises:
            MismatchError: Lags of held steps, or a granularity that the network lacks.
        """
        lags = options.lags if options.lags is not None else int(recording.momentum > 0)
        if lags and recording.held:
            raise MismatchError(
                subject,
                expected="steps that follow each other, for `lags=1`",
                found="held ones",
                remedy="leave `lags` out",
            )
        groups = None
        if options.granularity != "parameter":
            groups, _ = group_ids(recording.index, options.granularity, recording.active)
        num_groups = None if groups is None else int(groups.max()) + 1
        ranges = None if options.scope == "global" else _layer_ranges(recording, groups, 3 if lags else 1)
        return cls(1 if lags else 0, groups, num_groups, ranges)


def _layer_ranges(
    recording: PlannedRecording, groups: npt.NDArray[np.int64] | None, num_lags: int
) -> list[tuple[str, int, int]]:
    ranges, first, seen = [], 0, 0
    for entry in recording.index:
        count = members = int(recording.active[entry.offset : entry.stop].sum())
        if groups is not None:
            count = len(np.unique(groups[seen : seen + members]))
        if count:
            ranges.append((entry.name, first * num_lags, (first + count) * num_lags))
        first, seen = first + count, seen + members
    return ranges


def columns_of(
    options: FitOptions, reader: RecordingReader
) -> tuple[FeatureSource, list[tuple[str, int, int]] | None, int]:
    """The columns of X.

    Returns:
        The columns; (name, first column, stop) of each layer if each is fitted by itself; columns per parameter.

    Raises:
        MismatchError: Columns to be divided by a learning rate that changed, or was 0; or lags of held steps.
    """
    subject = f"recording {reader.name}"
    if divides_by_lr(options):
        _require_one_lr(reader, subject)
    form = ColumnForm.of(options, PlannedRecording.of_reader(reader), subject)
    source = FeatureSource(reader, lags=form.lags, groups=form.groups, lr_scale=divides_by_lr(options))
    return source, form.ranges, form.num_lags


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


def _require_one_lr(reader: RecordingReader, subject: str) -> None:
    lr = reader.learning_rates.distinct
    if len(lr) > 1 or not np.all(lr > 0):
        raise no_single_lr(subject, f"{lr.min():g} to {lr.max():g}" if len(lr) > 1 else f"{lr[0]:g}")


def no_single_lr(subject: str, found: str) -> MismatchError:
    """The error where columns can't be divided by the square of a learning rate."""
    return MismatchError(
        subject,
        expected="one learning rate above 0, to divide the columns by its square",
        found=found,
        remedy="use `normalize=none` or `normalize=column`",
    )
