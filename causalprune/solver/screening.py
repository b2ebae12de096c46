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
from causalprune.solver.process_group import Division
from causalprune.solver.source import Float32, Float64
from causalprune.solver.working_set import ColumnPool, ColumnScales, Positions


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
class Piece:
    """The part of a block that belongs to the region.

    Attributes:
        start: Its first column, counted from the region's.
        stop: Column behind the last.
        reference: What it was last correlated with; None before the first time.
        peak: (K,) upper bounds of its columns' correlations with it, those in the pool left out.
        ranked: (T,) what ``rank`` of its columns was computed with; None if it wasn't.
    """

    start: int
    stop: int
    reference: Reference | None = None
    peak: Float64 | None = None
    ranked: Float64 | None = None


def upper_limits(
    pieces: Mapping[int, Piece], largest_norms: Mapping[int, float], owner: int, vector: Float64
) -> dict[int, float]:
    """Upper bounds of |x̃_jᵀz'| over the columns outside the pool, by block number.

    Args:
        pieces: By block number.
        largest_norms: Of each piece with columns outside the pool, the largest ‖x̃_j‖ among these.
        owner: Number of the task that z' belongs to.
        vector: (T,) z'.
    """
    length = float(np.linalg.norm(vector))
    limits = {}
    centres: dict[int, tuple[npt.NDArray[np.int64], Float64, Float64]] = {}
    for number, norm in largest_norms.items():
        piece = pieces[number]
        limit = norm * length
        if piece.reference is not None and piece.peak is not None:
            key = id(piece.reference)
            if key not in centres:
                centres[key] = _centres(piece.reference, owner, vector)
            places, share, distance = centres[key]
            if len(places):
                limit = min(limit, float((share * piece.peak[places] + norm * distance).min()))
        limits[number] = limit * (1 + 1e-12)
    return limits


def _centres(reference: Reference, owner: int, vector: Float64) -> tuple[npt.NDArray[np.int64], Float64, Float64]:
    """Which vectors of a reference bound another one's correlations, each with its best β and ‖z' − βz‖."""
    places = np.flatnonzero((reference.owner == owner) | (reference.owner < 0))
    places = places[reference.norms[places] > 0]
    z = reference.vectors[:, places]
    share = np.maximum(vector @ z, 0.0) / reference.norms[places] ** 2
    return places, share, np.linalg.norm(vector[:, None] - share * z, axis=0)


_KEEP_SCORE = 0.5
"""From this share of the bound on a column may become active, as the residual changes."""


class Candidates:
    """The pool of a region, filled within a quota.

    Args:
        division: The region's columns. Of several processes each chooses among its own blocks' columns; the first one
            also holds what the others chose.
        pieces: The parts of this process's blocks, by block number; their bounds take in what leaves the pool.
        scales: Of the region's columns.
        num_rows: T.
        capacity: Columns of all processes' pools together.
        sign: 1: γ ≥ 0; −1: γ ≤ 0; 0: free.

    Attributes:
        pool: The columns.
        pooled: (n,) which of this process's columns are in it.
    """

    def __init__(
        self,
        division: Division,
        pieces: Mapping[int, Piece],
        scales: ColumnScales,
        *,
        num_rows: int,
        capacity: int,
        sign: int,
    ) -> None:
        self._division, self._pieces, self._scales, self._sign = division, pieces, scales, sign
        self._quota, held = division.quotas(capacity)
        self._num_own = sum(piece.stop - piece.start for piece in pieces.values())
        self.pool = ColumnPool(num_rows, held)
        self.pooled = np.zeros(division.num_columns, bool)
        self._in_use: Positions = np.empty(0, np.int64)
        self._threshold = 0.0

    def choose(self, score: Float64) -> Positions:
        """Make room for the columns of a piece that are to join.

        Args:
            score: (n,) how near each column of the piece is to entering; −∞ of those that are in the pool.

        Returns:
            Their places in the piece.
        """
        taken = np.flatnonzero(score > self._threshold)
        own = self._own()
        if len(taken) <= self._quota - np.count_nonzero(own):
            return taken
        held = self.pool.score.copy()
        held[np.isin(self.pool.ids, self._in_use)] = np.inf
        both = np.concatenate([held[own], score[taken]])
        stay = max(1, (3 * self._quota) // 4)
        # Most pieces have yet to come: leave room, and ask more of them.
        self._threshold = float(np.partition(both, len(both) - stay)[len(both) - stay])
        leaving = own & (held < self._threshold)
        room = self._quota - np.count_nonzero(own & ~leaving)
        self._evict(leaving)
        taken = taken[score[taken] >= self._threshold]
        return taken[np.argsort(-score[taken], kind="stable")[:room]]

    def add(self, block: Float32, ids: Positions, scale: Float64, scaled_norm: Float64, score: Float64) -> None:
        """Add chosen columns; the arguments are those of :meth:`ColumnPool.add`."""
        self.pool.add(block, ids, scale, scaled_norm, score)
        self.pooled[ids] = True

    def settle(self, in_use: Positions) -> None:
        """Note which columns the solutions use, which mustn't leave, and ask little of others again."""
        self._in_use = in_use
        crowded = self._quota < self._num_own and 2 * np.count_nonzero(self._own()) > self._quota
        self._threshold = _KEEP_SCORE if crowded else 0.0

    def norms_outside(self) -> dict[int, float]:
        """Of each piece with columns outside the pool that aren't zero, the largest ‖x̃_j‖ among these."""
        largest = {}
        for number, piece in self._pieces.items():
            ids = slice(piece.start, piece.stop)
            outside = ~self.pooled[ids]
            norm = float(self._scales.of(ids)[1][outside].max(initial=0.0))
            if norm > 0:
                largest[number] = norm
        return largest

    def _own(self) -> npt.NDArray[np.bool_]:
        """(size,) which columns of the pool are in this process's blocks."""
        if self._division.team.count == 1 or not self._division.team.is_first:
            return np.ones(self.pool.size, bool)
        return self._division.owners(self.pool.ids) == 0

    def _evict(self, leaving: npt.NDArray[np.bool_]) -> None:
        """Drop columns from the pool; the bounds of their pieces take them in."""
        rows = np.flatnonzero(leaving)
        numbers = self._division.numbers(self.pool.ids[rows])
        by_reference: dict[int, list[int]] = {}
        for number in np.unique(numbers):
            by_reference.setdefault(id(self._pieces[int(number)].reference), []).append(int(number))
        for group in by_reference.values():
            reference = self._pieces[group[0]].reference
            assert reference is not None
            mine = np.isin(numbers, group)
            upper = signed(self.pool.exact_correlations(rows[mine], reference.vectors), self._sign)
            for number in group:
                piece = self._pieces[number]
                assert piece.peak is not None
                np.maximum(piece.peak, upper[numbers[mine] == number].max(axis=0), out=piece.peak)
        self.pooled[self.pool.ids[rows]] = False
        self.pool.keep(~leaving)
