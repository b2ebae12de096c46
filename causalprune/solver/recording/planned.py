"""What a fit refuses whatever is recorded: asked before the recording, which takes hours, by its size and its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from causalprune.models.parameters import ParameterIndex
from causalprune.solver.features import FeatureSize
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.recording.columns import ColumnForm, divides_by_lr, no_single_lr
from causalprune.solver.recording.options import FitOptions
from causalprune.solver.recording.regression import problem_of, require_processes, solver_options
from causalprune.solver.source import Float64
from causalprune.trajectory import RecordingReader
from causalprune.trajectory.schema import BlockShape


@dataclass(frozen=True, eq=False)
class PlannedRecording:
    """As much of a recording as is known before it is made.

    Attributes:
        index: The prunable parameters.
        active: (P,) which of them it will have, at least one.
        num_rows: T, at least 1.
        block_width: Columns per chunk.
        momentum: That of its steps.
        held: Whether each step is taken back, and has a learning rate of its own.
    """

    index: ParameterIndex
    active: npt.NDArray[np.bool_]
    num_rows: int
    block_width: int
    momentum: float = 0.0
    held: bool = False

    @property
    def num_columns(self) -> int:
        """How many it will have."""
        return int(np.count_nonzero(self.active))

    @classmethod
    def of(
        cls,
        index: ParameterIndex,
        active: npt.NDArray[np.bool_],
        num_rows: int,
        *,
        momentum: float = 0.0,
        held: bool = False,
    ) -> Self:
        """A recording that is still to be made, in chunks as wide as they will be."""
        width = BlockShape.choose(int(np.count_nonzero(active)), num_rows).width
        return cls(index, active, num_rows, width, momentum, held)

    @classmethod
    def of_reader(cls, reader: RecordingReader) -> Self:
        """One that is there."""
        info = reader.info
        return cls(reader.index, reader.active, reader.num_rows, reader.block_width, info.momentum, info.held)


def require_solvable(
    options: FitOptions, planned: PlannedRecording, row_weights: Float64 | None = None, *, processes: int = 1
) -> None:
    """Refuse what a fit of such a recording would refuse, whatever its rows are.

    Args:
        options: Those of the fit.
        planned: The recording.
        row_weights: (T,) weight of each row's squared error; None for equal weights.
        processes: How many of them share the columns.

    Raises:
        UsageError: Options that the solver doesn't support or that such a size doesn't permit, or too little memory.
        MismatchError: A granularity that the network lacks, lags of held steps, or columns divided by their rates.
        DataError: Too few rows.
    """
    solver: Solver = SOLVERS.load(options.solver)
    require_processes(options, processes)
    if planned.held and divides_by_lr(options):
        raise no_single_lr("recording", "one for each step, which is held")
    form = ColumnForm.of(
        options, planned.index, planned.active, momentum=planned.momentum, held=planned.held, subject="recording"
    )
    columns = planned.num_columns
    size = FeatureSize.of(planned.num_rows, columns, planned.block_width, lags=form.lags, groups=form.num_groups)
    how = solver_options(options, planned.index.total, row_weights, size.num_rows)
    solver.check(size, problem_of(options), how, form.ranges, processes)
