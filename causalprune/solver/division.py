"""Which process of a fit has which columns: blocks of them, counted from column 0 of X, go round the team."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.solver.pool import Positions
from causalprune.solver.team import Team


@dataclass(frozen=True)
class Division:
    """A range of columns of X, divided among a team; positions are counted from the range's first column.

    Attributes:
        start: First column of the range in X.
        stop: Column behind its last.
        block_width: Columns of a block.
        team: The processes.
    """

    start: int
    stop: int
    block_width: int
    team: Team

    @property
    def num_columns(self) -> int:
        """Columns of the range."""
        return self.stop - self.start

    def own_spans(self) -> dict[int, tuple[int, int]]:
        """First column and the one behind the last, within the range, of each of this process's blocks, by number."""
        width = self.block_width
        return {
            number: (max(number * width, self.start) - self.start, min((number + 1) * width, self.stop) - self.start)
            for number in range(self.start // width, -(-self.stop // width))
            if self.team.owner(np.array(number)) == self.team.rank
        }

    def numbers(self, ids: Positions) -> npt.NDArray[np.int64]:
        """Numbers of the blocks that columns are in."""
        return (ids + self.start) // self.block_width

    def owners(self, ids: Positions) -> npt.NDArray[np.int64]:
        """Whose blocks columns are in."""
        return self.team.owner(self.numbers(ids))

    def columns_of(self, member: int) -> npt.NDArray[np.bool_]:
        """(n,) the columns in a process's blocks."""
        numbers = np.arange(self.start // self.block_width, -(-self.stop // self.block_width))
        theirs = np.repeat(self.team.owner(numbers) == member, self.block_width)
        first = self.start % self.block_width
        return theirs[first : first + self.num_columns]

    def quotas(self, capacity: int) -> tuple[int, int]:
        """How many columns this process may hold of its own blocks, and in all: the first one holds those of others.

        Args:
            capacity: Columns that may be held in all, divided alike among the processes.
        """
        if capacity >= self.num_columns:
            own = sum(stop - start for start, stop in self.own_spans().values())
            return own, self.num_columns if self.team.is_first else own
        others = self.team.count - 1
        of_others = max(1, capacity // self.team.count)
        if not self.team.is_first:
            return of_others, of_others
        own = max(1, capacity - others * of_others)
        return own, own + others * of_others
