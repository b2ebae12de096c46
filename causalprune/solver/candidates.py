"""Which columns of a region are in its pool: the nearest to entering the model join it, and others make room."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from causalprune.columns import Float32, Float64
from causalprune.solver.bounds import Piece
from causalprune.solver.certificate import signed
from causalprune.solver.division import Division
from causalprune.solver.pool import ColumnPool, Positions
from causalprune.solver.scales import ColumnScales

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
