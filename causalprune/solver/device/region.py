"""A range of columns on a device fitted by itself: measure, solve its tasks, certify them over all columns, rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from causalprune.solver.device.matrix import Matrix
from causalprune.solver.device.path_columns import DeviceColumns
from causalprune.solver.kkt_scores import Ranking
from causalprune.solver.path import PathSolver, Solution, Task
from causalprune.solver.region import FittedColumns
from causalprune.solver.source import Float32, Float64
from causalprune.solver.working_set import Positions, WorkingSet


class DeviceRegion(FittedColumns):
    """Columns on a device that share their tasks.

    Args:
        matrix: The columns.
        start: First column in X.
        tasks: The regressions; the first is the fit itself. More may be appended.
        target_norm: ‖y‖.
        normalize: ``none`` or ``column``.
        capacity: Columns to keep in the host's memory besides those in use.
    """

    def __init__(
        self, matrix: Matrix, start: int, tasks: list[Task], *, target_norm: float, normalize: str, capacity: int
    ) -> None:
        stop = start + matrix.num_columns
        super().__init__(start, stop, tasks, target_norm=target_norm, normalize=normalize)
        self._matrix, self._capacity = matrix, capacity
        self._fetched = WorkingSet(matrix.num_rows, min(matrix.num_columns, 1024))
        self._ranking = _DeviceRanking(tasks[0], self)
        self._refine = False

    @property
    def ranking(self) -> _DeviceRanking:
        """KKT scores of all columns, in float64, at one of the first task's solutions."""
        return self._ranking

    @property
    def product_seconds(self) -> float:
        """Time spent in products on the device so far."""
        return self._matrix.seconds

    def measure(self) -> None:
        """Compute the norm and scale of every column, and alpha_max.

        Raises:
            DataError: A column isn't finite.
        """
        matrix = self._matrix
        self._measure(0, matrix.norms())
        self._matrix.scale_by(self._scales.of(slice(None))[0])
        # The score in float32 says where to begin; alpha_max is that of float64.
        with_target = matrix.shares(self._lead, self._sign, (np.empty(0, np.int64), np.empty(0)))
        self._largest_correlation = max(0.0, float(with_target.max()))
        self._score = with_target.to(torch.float32)

    def solve(self) -> None:
        """Solve all tasks over all columns."""
        if not self._largest_correlation > 0:
            return
        score = self._matrix.empty(torch.float32)
        for task in self.tasks:
            if task.finished:
                continue
            columns = DeviceColumns(self._matrix, self.fetch, self._score, score)
            solver = PathSolver(task, columns, self._scaling, 0.01 * task.tol)
            task.solutions = solver.run(self.alpha_max, refine=self._refine)
        self._score, self._refine = score, True

    def certify(self) -> bool:
        """Compute the duality gap of every solution in a pass of its own over all columns, those of the core as well.

        Returns:
            Whether every gap is within its goal.
        """
        for task in self.tasks:
            pending = [place for place, solution in enumerate(task.solutions) if not task.done(solution)]
            if not pending:
                continue
            solutions = [task.solutions[place] for place in pending]
            vectors = np.stack([self.scaled_residual(task, solution) for solution in solutions])
            peaks = self._matrix.peaks(vectors, task.sign, [solution.shift for solution in solutions])
            for place, solution, peak in zip(pending, solutions, peaks, strict=True):
                bound = self._rows * solution.penalty.l1
                gap, rounding = self._gap(task, solution, bound * max(1.0, float(peak)))
                task.solutions[place] = replace(solution, gap=gap + rounding)
        return all(task.finished or not task.solutions for task in self.tasks)

    def scaled_residual(self, task: Task, solution: Solution) -> Float64:
        """(T,) the vector whose products with columns are shares of the bound."""
        return task.vector(solution) / (self._rows * solution.penalty.l1)

    def shares(self, task: Task, solution: Solution) -> torch.Tensor:
        """(n,) float64 KKT scores of a solution, on the device."""
        return self._matrix.shares(self.scaled_residual(task, solution), task.sign, solution.shift)

    def fetch(self, ids: Positions, into: WorkingSet) -> None:
        """Add columns to a working set."""
        fetched = self._fetched
        lacking = ids[fetched.places(ids) < 0]
        if len(lacking):
            scale, norm = self._scales.of(lacking)
            values = self._matrix.gather(lacking)
            fetched.reserve(len(lacking))
            fetched.add(values, lacking, scale, norm, np.zeros(len(lacking)))
        fetched.copy_to(into, fetched.places(ids))
        if fetched.size > max(self._capacity, 2 * len(ids)):
            fetched.keep(np.isin(fetched.ids, ids))

    def fetched(self, ids: Positions) -> WorkingSet:
        """A working set of these columns."""
        found = WorkingSet(self._rows, len(ids))
        self.fetch(ids, found)
        return found

    def predict(self, solution: Solution) -> Float64:
        """(T,) Xγ in units of ‖y‖, not weighted."""
        columns = self.fetched(solution.ids)
        return solution.coefficients @ columns.columns(columns.places(solution.ids))

    def collect_scores(self) -> None:
        """Nothing is left to do: the scores are computed when they are asked for."""


class _DeviceRanking(Ranking):
    """The KKT scores of all columns, from a pass in float64."""

    def __init__(self, task: Task, region: DeviceRegion) -> None:
        super().__init__(task)
        self._region = region

    def final(self) -> tuple[Float32, float]:
        """See :class:`Ranking`."""
        solution = self.solution
        if solution is None:
            return np.zeros(self._region.stop - self._region.start, np.float32), 0.0
        values: Float32 = self._region.shares(self._task, solution).to(torch.float32).cpu().numpy()
        return values, 0.0

    def at_bound(self, tolerance: float) -> Positions:
        """See :class:`Ranking`."""
        solution = self.solution
        if solution is None:
            return np.empty(0, np.int64)
        found: Positions = torch.nonzero(self._region.shares(self._task, solution) >= 1 - tolerance)[:, 0].cpu().numpy()
        return found

    def columns(self, ids: Positions) -> Float64:
        """See :class:`Ranking`."""
        held = self._region.fetched(ids)
        return held.columns(held.places(ids))
