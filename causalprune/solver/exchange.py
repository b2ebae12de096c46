"""What the processes of a fit tell each other about a region: columns, solutions, ranks."""

from __future__ import annotations

import numpy as np

from causalprune.solver.path import Task
from causalprune.solver.process_group import Division
from causalprune.solver.source import Float32
from causalprune.solver.working_set import SLAB, ColumnPool, ColumnScales, Positions


class Exchange:
    """One process's end of it. All processes must call each method in turn; of one alone nothing is asked.

    Args:
        division: The region's columns.
        scales: Of these.
        pool: Of this process.
    """

    def __init__(self, division: Division, scales: ColumnScales, pool: ColumnPool) -> None:
        self._division, self._scales, self._pool = division, scales, pool
        self._team = division.team
        self._sent: Positions = np.empty(0, np.int64)

    def gather(self) -> None:
        """Make the first process's pool that of all: the others send the columns that it doesn't have."""
        if self._team.is_first:
            for sender in self._team.others():
                self._receive(sender)
            return
        pool = self._pool
        rows = np.flatnonzero(~np.isin(pool.ids, self._sent))
        self._sent = pool.ids.copy()
        for array in (pool.ids, pool.ids[rows], self._scales.norm[pool.ids[rows]], pool.score[rows]):
            self._team.send(array)
        for start in range(0, len(rows), SLAB):
            self._team.send(pool.raw_columns(rows[start : start + SLAB]))

    def _receive(self, sender: int) -> None:
        pool = self._pool
        held = self._team.receive(sender, np.int64)
        pool.keep((self._division.owners(pool.ids) != sender) | np.isin(pool.ids, held))
        ids, norms = self._team.receive(sender, np.int64), self._team.receive(sender, np.float32)
        score = self._team.receive(sender, np.float64)
        self._scales.norm[ids] = norms
        scale, scaled_norm = self._scales.of(ids)
        for start in range(0, len(ids), SLAB):
            part = slice(start, start + SLAB)
            values = self._team.receive(sender, np.float32).reshape(-1, pool.num_rows).T
            pool.add(values, ids[part], scale[part], scaled_norm[part], score[part])

    def spread(self, tasks: list[Task]) -> None:
        """Give the first process's solutions to all, and how near the columns of its pool are to entering."""
        if self._team.count == 1:
            return
        pool = self._pool
        mine = ([task.solutions for task in tasks], pool.ids, pool.score) if self._team.is_first else None
        found = self._team.from_first(mine)
        if found is None or self._team.is_first:
            return
        solutions, ids, score = found
        for task, own in zip(tasks, solutions, strict=True):
            task.solutions = own
        places = pool.places(ids)
        pool.score[places[places >= 0]] = score[places >= 0]

    def collect(self, values: Float32) -> None:
        """Fill in at the first process, in ``values`` (n,), what the others have of their own columns."""
        if not self._team.is_first:
            self._team.send(values[self._division.columns_of(self._team.rank)])
            return
        for sender in self._team.others():
            values[self._division.columns_of(sender)] = self._team.receive(sender, np.float32)
