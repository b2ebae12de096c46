"""How near every column is to entering the model at one solution, which ranks the columns with γ = 0."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from causalprune.solver.certificate import signed
from causalprune.solver.exchange import Exchange
from causalprune.solver.path import Solution, Task
from causalprune.solver.process_group import ProcessGroup
from causalprune.solver.screening import BlockPart, Screening
from causalprune.solver.source import Float32, Float64
from causalprune.solver.working_set import Positions


class KktScores:
    """|x̃_jᵀz − Tλ₂g_j|/(Tλ₁) of a region's columns, z the residual of the solution that ranks them.

    Args:
        task: The fit itself.
        parts: The parts of this process's blocks, by block number.
        candidates: The columns in memory, for which it is computed exactly at the end.

    Attributes:
        place: Place of that solution among the task's, or None if it isn't known yet.
    """

    def __init__(self, task: Task, parts: Mapping[int, BlockPart], candidates: Screening) -> None:
        self.place: int | None = None
        self._task, self._parts, self._screening = task, parts, candidates
        self._values = np.zeros(len(candidates.held), np.float32)
        self._error = 0.0

    @property
    def solution(self) -> Solution | None:
        """The solution that ranks the columns."""
        return None if self.place is None or not self._task.solutions else self._task.solutions[self.place]

    def note(self, part: BlockPart, correlations: Float64 | Float32) -> None:
        """Take in x̃_jᵀz of a part's columns, z being ``part.ranked``."""
        self._values[part.start : part.stop] = correlations

    def errors(self) -> dict[int, float]:
        """How far the values may be off, by block, the columns in memory left out."""
        if self.solution is None:
            return {}
        vector, bound = self._vector_and_bound(self.solution)
        errors = {}
        for number, norm in self._screening.norms_outside().items():
            ranked = self._parts[number].ranked
            errors[number] = np.inf if ranked is None else norm * float(np.linalg.norm(vector - ranked)) / bound
        return errors

    def collect(self, exchange: Exchange, group: ProcessGroup) -> None:
        """Bring to the first process what the others know of their columns."""
        (self._error,) = group.maximum(max(self.errors().values(), default=0.0))
        exchange.collect(self._values)

    def final(self) -> tuple[Float32, float]:
        """(n,) the values, and how far they may be off, after :meth:`collect`; 0 if no column correlates with y."""
        solution = self.solution
        if solution is None:
            return self._values, 0.0
        vector, bound = self._vector_and_bound(solution)
        working = self._screening.working_set
        exact = signed(working.exact_correlations(np.arange(working.size), vector[:, None])[:, 0], self._task.sign)
        self._values[working.ids] = exact
        self._values[solution.ids] -= len(vector) * solution.penalty.l2 * np.abs(solution.coefficients)
        self._values /= bound
        return self._values, self._error

    def at_bound(self, tolerance: float) -> Positions:
        """The equicorrelation set: columns whose correlation is the bound to within a share.

        The set is the same for all minimizers, γ isn't where its columns depend on each other (Tibshirani, 2013).
        """
        solution = self.solution
        if solution is None:
            return np.empty(0, np.int64)
        vector, bound = self._vector_and_bound(solution)
        working = self._screening.working_set
        found = working.exact_correlations(np.arange(working.size), vector[:, None])[:, 0]
        places = working.places(solution.ids)
        found[places] -= len(vector) * solution.penalty.l2 * solution.coefficients
        return np.sort(working.ids[signed(found, self._task.sign) >= bound * (1 - tolerance)])

    def is_unique(self, at_bound: Positions) -> bool | None:
        """Whether the columns at the bound are independent, which makes γ unique; None where there are too many."""
        solution = self.solution
        if solution is None or solution.penalty.l2 > 0 or len(at_bound) <= 1:
            return True
        if len(at_bound) > len(solution.residual):
            return False
        working = self._screening.working_set
        columns = working.columns(working.places(at_bound))
        return int(np.linalg.matrix_rank(columns)) == len(at_bound)

    def _vector_and_bound(self, solution: Solution) -> tuple[Float64, float]:
        """z, (T,), and Tλ₁."""
        return self._task.vector(solution), len(solution.residual) * solution.penalty.l1
