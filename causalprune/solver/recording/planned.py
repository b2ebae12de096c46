"""What a fit refuses whatever is recorded: asked before the recording, which takes hours, by its size and its steps."""

from __future__ import annotations

from causalprune.solver.features import FeatureSize
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.recording.columns import ColumnForm, divides_by_lr, no_single_lr
from causalprune.solver.recording.options import FitOptions
from causalprune.solver.recording.regression import problem_of, require_processes, solver_options
from causalprune.solver.source import Float64
from causalprune.trajectory.columns.planned import PlannedRecording


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
    form = ColumnForm.of(options, planned, "recording")
    size = FeatureSize.of(
        planned.num_rows, planned.num_columns, planned.block_width, lags=form.lags, groups=form.num_groups
    )
    how = solver_options(options, planned.index.total, row_weights, size.num_rows)
    solver.check(size, problem_of(options), how, form.ranges, processes)
