"""Which columns of a region are in its working set, and what is known of those that aren't.

The columns nearest to entering the model join the working set, and others make room. For every column outside it we
keep an upper bound of its correlation with the residual, block by block: the largest that was seen with the residual z
of an earlier solution. With another residual z' it is, for any β ≥ 0, at most

    |x̃ᵀz'| ≤ β·|x̃ᵀz| + ‖x̃‖·‖z' − βz‖,

so blocks need not be read again to certify a new solution that is near (the sphere test of El Ghaoui, Viallon and
Rabbani, 2012, with the best of several centers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.solver.certificate import signed
from causalprune.solver.path import Solution, Task
from causalprune.solver.process_group import Division, Exchange, ProcessGroup
from causalprune.solver.source import Float32, Float64
from causalprune.solver.working_set import ColumnScales, Positions, WorkingSet


@dataclass(frozen=True, eq=False)
class Reference:
    """The vectors that blocks are correlated with between two solutions.

    Attributes:
        vectors: (T, K) residuals z, each divided by its bound Tλ₁: a correlation is the share of the bound it reaches.
            In the first pass the first is ŷ (w∘ŷ with row weights), not divided.
        norms: (K,) lengths of the vectors.
        units: (K,) what they were divided by.
        owner: (K,) number of the task of each; −1 for ŷ.
        narrow: (K, T) the vectors as float32.
        ranking: Which of them ranks the columns, or None.
    """

    vectors: Float64
    norms: Float64
    units: Float64
    owner: npt.NDArray[np.int64]
    narrow: Float32
    ranking: int | None


@dataclass(eq=False)
class BlockPart:
    """The part of a block that belongs to the region.

    Attributes:
        start: Its first column, counted from the region's.
        stop: Column after the last.
        reference: What it was last correlated with; None before the first time.
        peak: (K,) upper bounds of its columns' correlations with it, those in the working set left out.
        ranked: (T,) what ``rank`` of its columns was computed with; None if it wasn't.
    """

    start: int
    stop: int
    reference: Reference | None = None
    peak: Float64 | None = None
    ranked: Float64 | None = None


def upper_limits(
    parts: Mapping[int, BlockPart], largest_norms: Mapping[int, float], owner: int, vector: Float64
) -> dict[int, float]:
    """Upper bounds of |x̃_jᵀz'| over the columns outside the working set, by block number.

    Args:
        parts: By block number.
        largest_norms: Of each part with columns outside the working set, the largest ‖x̃_j‖ among these.
        owner: Number of the task that z' belongs to.
        vector: (T,) z'.
    """
    length = float(np.linalg.norm(vector))
    limits = {}
    centers: dict[int, tuple[npt.NDArray[np.int64], Float64, Float64]] = {}
    for number, norm in largest_norms.items():
        part = parts[number]
        limit = norm * length
        if part.reference is not None and part.peak is not None:
            key = id(part.reference)
            if key not in centers:
                centers[key] = _centers(part.reference, owner, vector)
            places, share, distance = centers[key]
            if len(places):
                limit = min(limit, float((share * part.peak[places] + norm * distance).min()))
        limits[number] = limit * (1 + 1e-12)
    return limits


def _centers(reference: Reference, owner: int, vector: Float64) -> tuple[npt.NDArray[np.int64], Float64, Float64]:
    """Which vectors of a reference bound another one's correlations, each with its best β and ‖z' − βz‖."""
    places = np.flatnonzero((reference.owner == owner) | (reference.owner < 0))
    places = places[reference.norms[places] > 0]
    z = reference.vectors[:, places]
    share = np.maximum(vector @ z, 0.0) / reference.norms[places] ** 2
    return places, share, np.linalg.norm(vector[:, None] - share * z, axis=0)


_KEEP_SCORE = 0.5
"""A column whose score is above this share of the bound may become active, as the residual changes."""


class Screening:
    """The working set of a region, filled within a quota.

    Args:
        division: The region's columns. With several processes, each chooses among its own blocks' columns; the first
            also holds what the others chose.
        parts: The parts of this process's blocks, by block number; their bounds take in what leaves the working set.
        scales: Of the region's columns.
        num_rows: T.
        capacity: Columns of all processes' working sets together.
        sign: 1: γ ≥ 0; −1: γ ≤ 0; 0: free.

    Attributes:
        working_set: The columns.
        held: (n,) which of this process's columns are in it.
    """

    def __init__(
        self,
        division: Division,
        parts: Mapping[int, BlockPart],
        scales: ColumnScales,
        *,
        num_rows: int,
        capacity: int,
        sign: int,
    ) -> None:
        self._division, self._parts, self._scales, self._sign = division, parts, scales, sign
        self._quota, held = division.quotas(capacity)
        self._num_own = sum(part.stop - part.start for part in parts.values())
        self.working_set = WorkingSet(num_rows, held)
        self.held = np.zeros(division.num_columns, bool)
        self._in_use: Positions = np.empty(0, np.int64)
        self._threshold = 0.0

    def choose(self, score: Float64) -> Positions:
        """Make room for the columns of a part that are to join.

        Args:
            score: (n,) how near each column of the part is to entering; −∞ of those that are in the working set.

        Returns:
            Their places in the part.
        """
        taken = np.flatnonzero(score > self._threshold)
        own = self._own()
        if len(taken) <= self._quota - np.count_nonzero(own):
            return taken
        held = self.working_set.score.copy()
        held[np.isin(self.working_set.ids, self._in_use)] = np.inf
        both = np.concatenate([held[own], score[taken]])
        stay = max(1, (3 * self._quota) // 4)
        # Most parts have yet to come: leave room, and ask more of them.
        self._threshold = float(np.partition(both, len(both) - stay)[len(both) - stay])
        leaving = own & (held < self._threshold)
        room = self._quota - np.count_nonzero(own & ~leaving)
        self._evict(leaving)
        taken = taken[score[taken] >= self._threshold]
        return taken[np.argsort(-score[taken], kind="stable")[:room]]

    def add(self, block: Float32, ids: Positions, scale: Float64, scaled_norm: Float64, score: Float64) -> None:
        """Add chosen columns; the arguments are those of :meth:`WorkingSet.add`."""
        self.working_set.add(block, ids, scale, scaled_norm, score)
        self.held[ids] = True

    def protect(self, in_use: Positions) -> None:
        """Note which columns the solutions use, which mustn't leave, and ask little of others again."""
        self._in_use = in_use
        crowded = self._quota < self._num_own and 2 * np.count_nonzero(self._own()) > self._quota
        self._threshold = _KEEP_SCORE if crowded else 0.0

    def norms_outside(self) -> dict[int, float]:
        """The largest ‖x̃_j‖ of the columns outside the working set, for each part where one isn't zero."""
        largest = {}
        for number, part in self._parts.items():
            ids = slice(part.start, part.stop)
            outside = ~self.held[ids]
            norm = float(self._scales.of(ids)[1][outside].max(initial=0.0))
            if norm > 0:
                largest[number] = norm
        return largest

    def _own(self) -> npt.NDArray[np.bool_]:
        """(size,) which columns of the working set are in this process's blocks."""
        if self._division.group.count == 1 or not self._division.group.is_first:
            return np.ones(self.working_set.size, bool)
        return self._division.owners(self.working_set.ids) == 0

    def _evict(self, leaving: npt.NDArray[np.bool_]) -> None:
        """Drop columns from the working set; the bounds of their parts take them in."""
        rows = np.flatnonzero(leaving)
        numbers = self._division.numbers(self.working_set.ids[rows])
        by_reference: dict[int, list[int]] = {}
        for number in np.unique(numbers):
            by_reference.setdefault(id(self._parts[int(number)].reference), []).append(int(number))
        for group in by_reference.values():
            reference = self._parts[group[0]].reference
            assert reference is not None
            mine = np.isin(numbers, group)
            upper = signed(self.working_set.exact_correlations(rows[mine], reference.vectors), self._sign)
            for number in group:
                part = self._parts[number]
                assert part.peak is not None
                np.maximum(part.peak, upper[numbers[mine] == number].max(axis=0), out=part.peak)
        self.held[self.working_set.ids[rows]] = False
        self.working_set.keep(~leaving)


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
