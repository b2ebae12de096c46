"""What the processes of a fit tell each other about a region: columns, solutions, ranks."""

from __future__ import annotations

import numpy as np

from causalprune.solver.path import Task
from causalprune.solver.process_group import Division
from causalprune.solver.source import Float32
from causalprune.solver.working_set import SLAB, ColumnScales, Positions, WorkingSet


class Exchange:
    """One process's end of it. All processes must call each method in turn; of one alone nothing is asked.

    Args:
        division: The region's columns.
        scales: Of these.
        working: Of this process.
    """

    def __init__(self, division: Division, scales: ColumnScales, working: WorkingSet) -> None:
        self._division, self._scales, self._working_set = division, scales, working
        self._group = division.group
        self._sent: Positions = np.empty(0, np.int64)

    def gather(self) -> None:
        """Make the first process's working set that of all: the others send the columns that it doesn't have."""
        if self._group.is_first:
            for sender in self._group.other_ranks():
                self._receive(sender)
            return
        working = self._working_set
        rows = np.flatnonzero(~np.isin(working.ids, self._sent))
        self._sent = working.ids.copy()
        for array in (working.ids, working.ids[rows], self._scales.norm[working.ids[rows]], working.score[rows]):
            self._group.send(array)
        for start in range(0, len(rows), SLAB):
            self._group.send(working.raw_columns(rows[start : start + SLAB]))

    def _receive(self, sender: int) -> None:
        working = self._working_set
        held = self._group.receive(sender, np.int64)
        working.keep((self._division.owners(working.ids) != sender) | np.isin(working.ids, held))
        ids, norms = self._group.receive(sender, np.int64), self._group.receive(sender, np.float32)
        score = self._group.receive(sender, np.float64)
        self._scales.norm[ids] = norms
        scale, scaled_norm = self._scales.of(ids)
        for start in range(0, len(ids), SLAB):
            part = slice(start, start + SLAB)
            values = self._group.receive(sender, np.float32).reshape(-1, working.num_rows).T
            working.add(values, ids[part], scale[part], scaled_norm[part], score[part])

    def broadcast(self, tasks: list[Task]) -> None:
        """Give the first process's solutions to all, and how near the columns of its working set are to entering."""
        if self._group.count == 1:
            return
        working = self._working_set
        mine = ([task.solutions for task in tasks], working.ids, working.score) if self._group.is_first else None
        found = self._group.broadcast(mine)
        if found is None or self._group.is_first:
            return
        solutions, ids, score = found
        for task, own in zip(tasks, solutions, strict=True):
            task.solutions = own
        places = working.places(ids)
        working.score[places[places >= 0]] = score[places >= 0]

    def collect(self, values: Float32) -> None:
        """Fill in at the first process, in ``values`` (n,), what the others have of their own columns."""
        if not self._group.is_first:
            self._group.send(values[self._division.columns_of(self._group.rank)])
            return
        for sender in self._group.other_ranks():
            values[self._division.columns_of(sender)] = self._group.receive(sender, np.float32)
