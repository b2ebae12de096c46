"""Screening: which columns join the working set, and upper bounds on the correlations of all others.

The columns nearest to becoming active join the working set, and others leave to make room. For the columns outside it
we keep one upper bound per block and vector: the largest correlation with the residual z of an earlier solution. For
another residual z' and any β ≥ 0,

    |x̃ᵀz'| ≤ β·|x̃ᵀz| + ‖x̃‖·‖z' − βz‖,

so that a new solution near an earlier one is certified without reading the blocks again (the sphere test of El Ghaoui,
Viallon and Rabbani, 2012, with the best of several centers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.solver.certificate import signed
from causalprune.solver.process_group import Division
from causalprune.solver.source import Float32, Float64
from causalprune.solver.working_set import ColumnScales, Positions, WorkingSet


@dataclass(eq=False)
class Reference:
    """The vectors that blocks are correlated with between two solutions.

    Attributes:
        vectors: (T, K) residuals z, each divided by its bound Tλ₁, so that correlations are shares of the bound. In the
            first pass the first vector is ŷ (w∘ŷ with row weights), not divided.
        units: (K,) what each vector was divided by.
        owner: (K,) number of each vector's task; −1 for ŷ.
        ranking: Which vector the KKT scores are computed with, or None.
        norms: (K,) ‖z‖.
        narrow: (K, T) the vectors as float32.
    """

    vectors: Float64
    units: Float64
    owner: npt.NDArray[np.int64]
    ranking: int | None

    def __post_init__(self) -> None:
        self.norms: Float64 = np.linalg.norm(self.vectors, axis=0)
        self.narrow: Float32 = np.ascontiguousarray(self.vectors.T, np.float32)


@dataclass(eq=False)
class BlockPart:
    """The part of a block that belongs to the region.

    Attributes:
        start: Its first column, counted from the region's.
        stop: Column after the last.
        reference: What it was last correlated with; None before the first time.
        peak: (K,) upper bounds on the correlations of its columns outside the working set with the reference's vectors.
        ranked: (T,) the residual with which the KKT scores of its columns were computed; None if they weren't.
        ranking_unit: What those were divided by, the bound at that time.
    """

    start: int
    stop: int
    reference: Reference | None = None
    peak: Float64 | None = None
    ranked: Float64 | None = None
    ranking_unit: float = 1.0


def upper_limits(
    parts: Mapping[int, BlockPart], largest_norms: Mapping[int, float], owner: int, vector: Float64
) -> dict[int, float]:
    """Upper bounds on |x̃_jᵀz'| over the columns outside the working set, by block number.

    Args:
        parts: The parts, by block number.
        largest_norms: The largest ‖x̃_j‖ outside the working set, see :meth:`Screening.norms_outside`.
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
    """Places of the vectors z of a reference that bound correlations with z', and their best β and ‖z' − βz‖."""
    places = np.flatnonzero((reference.owner == owner) | (reference.owner < 0))
    places = places[reference.norms[places] > 0]
    z = reference.vectors[:, places]
    share = np.maximum(vector @ z, 0.0) / reference.norms[places] ** 2
    return places, share, np.linalg.norm(vector[:, None] - share * z, axis=0)


_KEEP_SCORE = 0.5
"""A column whose correlation exceeds this share of the bound may become active as the residual changes."""


class Screening:
    """Chooses the columns of a region's working set, within a quota.

    Args:
        division: The region's columns. Each process chooses among the columns of its own blocks; the first one also
            holds what the others chose.
        parts: The parts of this process's blocks, by block number. Their bounds cover the columns that leave.
        scales: Scales of the region's columns.
        num_rows: T.
        capacity: Columns in the working sets of all processes together.
        sign: 1: γ ≥ 0; −1: γ ≤ 0; 0: free.

    Attributes:
        working_set: The working set.
        held: (n,) True for the columns of this process's blocks that are in it.
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
        """Choose the columns of a part that join the working set, and make room for them.

        Args:
            score: (n,) how near each column of the part is to becoming active; −∞ for those in the working set.

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
        # Most parts are still to come: leave room, and raise the threshold for them.
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
        """Keep the columns that solutions use from leaving, and lower the threshold for others again."""
        self._in_use = in_use
        crowded = self._quota < self._num_own and 2 * np.count_nonzero(self._own()) > self._quota
        self._threshold = _KEEP_SCORE if crowded else 0.0

    def norms_outside(self) -> dict[int, float]:
        """The largest ‖x̃_j‖ outside the working set, by block number; without the parts where it is 0."""
        largest = {}
        for number, part in self._parts.items():
            ids = slice(part.start, part.stop)
            outside = ~self.held[ids]
            norm = float(self._scales.of(ids)[1][outside].max(initial=0.0))
            if norm > 0:
                largest[number] = norm
        return largest

    def _own(self) -> npt.NDArray[np.bool_]:
        """(size,) True for the columns of the working set that are in this process's blocks."""
        own: npt.NDArray[np.bool_] = self._division.owners(self.working_set.ids) == self._division.group.rank
        return own

    def _evict(self, leaving: npt.NDArray[np.bool_]) -> None:
        """Drop columns from the working set, and raise the bounds of their parts to cover them."""
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
