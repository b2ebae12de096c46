"""KKT scores of all columns: |x̃_jᵀr − Tλ₂g_j|/(Tλ₁), at most 1 at the optimum and 1 where γ isn't zero.

They rank the columns with γ = 0 by how near each is to becoming active, and name the equicorrelation set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from causalprune.solver.certificate import signed
from causalprune.solver.path import Solution, Task
from causalprune.solver.process_group import Exchange
from causalprune.solver.screening import BlockPart, Screening
from causalprune.solver.source import Float32, Float64
from causalprune.solver.working_set import Positions


class Ranking(ABC):
    """The KKT scores of a range of columns for one solution of a task.

    Args:
        task: The fit itself.

    Attributes:
        place: Place of the solution in ``task.solutions``, or None if it isn't chosen yet.
    """

    def __init__(self, task: Task) -> None:
        self.place: int | None = None
        self._task = task

    @property
    def solution(self) -> Solution | None:
        """The solution that the scores belong to."""
        return None if self.place is None or not self._task.solutions else self._task.solutions[self.place]

    @abstractmethod
    def final(self) -> tuple[Float32, float]:
        """The (n,) scores and a bound on their errors; 0 if no column correlates with y."""

    @abstractmethod
    def at_bound(self, tolerance: float) -> Positions:
        """The equicorrelation set: the columns whose score is 1, up to ``tolerance``.

        The set is the same for all minimizers, but γ isn't where its columns depend on each other (Tibshirani, 2013).
        """

    @abstractmethod
    def columns(self, ids: Positions) -> Float64:
        """(n, T) the scaled columns at positions in the equicorrelation set."""

    def is_unique(self, at_bound: Positions) -> bool:
        """Whether γ is unique, because the columns of the equicorrelation set are linearly independent."""
        solution = self.solution
        if solution is None or solution.penalty.l2 > 0 or len(at_bound) <= 1:
            return True
        if len(at_bound) > len(solution.residual):
            return False
        return int(np.linalg.matrix_rank(self.columns(at_bound))) == len(at_bound)


class KktScores(Ranking):
    """The KKT scores of a region's columns, as its passes happen to give them.

    Args:
        task: The fit itself.
        parts: The parts of this process's blocks, by block number.
        screening: Knows the columns in memory, whose scores are computed exactly at the end.
    """

    def __init__(self, task: Task, parts: Mapping[int, BlockPart], screening: Screening) -> None:
        super().__init__(task)
        self._parts, self._screening, self._working_set = parts, screening, screening.working_set
        self._values = np.zeros(len(screening.held), np.float32)
        self._error = 0.0

    def note(self, part: BlockPart, shares: Float32) -> None:
        """Store |x̃_jᵀz|/``part.ranking_unit`` of a part's columns, z being ``part.ranked``."""
        self._values[part.start : part.stop] = shares

    def errors(self) -> dict[int, float]:
        """Upper bounds on the errors of the scores by block number, for the columns that aren't in memory."""
        solution = self.solution
        if solution is None:
            return {}
        vector, errors = self._task.vector(solution), {}
        for number, norm in self._screening.norms_outside().items():
            ranked = self._parts[number].ranked
            distance = np.inf if ranked is None else float(np.linalg.norm(vector - ranked))
            errors[number] = norm * distance / (len(vector) * solution.penalty.l1)
        return errors

    def collect(self, exchange: Exchange) -> None:
        """Gather at the first process the scores of the other processes' columns."""
        if self.solution is not None:
            bound = len(self.solution.residual) * self.solution.penalty.l1
            # α may be so far above alpha_max that the scores vanish in float32.
            with np.errstate(over="ignore", under="ignore"):
                for part in self._parts.values():
                    self._values[part.start : part.stop] *= part.ranking_unit / bound
        (self._error,) = exchange.group.maximum(max(self.errors().values(), default=0.0))
        exchange.collect(self._values)

    def final(self) -> tuple[Float32, float]:
        """The (n,) scores and a bound on their errors, after :meth:`collect`; 0 if no column correlates with y."""
        solution = self.solution
        if solution is None:
            return self._values, 0.0
        T, penalty = len(solution.residual), solution.penalty
        found = signed(self._correlations(solution), self._task.sign)
        found[self._working_set.places(solution.ids)] -= T * penalty.l2 * np.abs(solution.coefficients)
        with np.errstate(under="ignore"):
            self._values[self._working_set.ids] = found / (T * penalty.l1)
        return self._values, self._error

    def at_bound(self, tolerance: float) -> Positions:
        """See :class:`Ranking`."""
        solution = self.solution
        if solution is None:
            return np.empty(0, np.int64)
        T, penalty, working = len(solution.residual), solution.penalty, self._working_set
        found = self._correlations(solution)
        found[working.places(solution.ids)] -= T * penalty.l2 * solution.coefficients
        return np.sort(working.ids[signed(found, self._task.sign) >= T * penalty.l1 * (1 - tolerance)])

    def columns(self, ids: Positions) -> Float64:
        """See :class:`Ranking`."""
        return self._working_set.columns(self._working_set.places(ids))

    def _correlations(self, solution: Solution) -> Float64:
        """(size,) x̃_jᵀr of the columns in memory, in float64."""
        return self._working_set.exact_correlation(self._task.vector(solution))
