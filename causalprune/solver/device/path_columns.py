"""All columns on a device as those that a path is solved over: its core is fetched, violators are found there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from causalprune.solver.device.matrix import Matrix
from causalprune.solver.path import VIOLATORS, PathColumns, Solution, Task
from causalprune.solver.working_set import KKT_MARGIN, Positions, WorkingSet

Fetch = Callable[[Positions, WorkingSet], None]
"""``fetch(positions, core)`` adds columns to a working set."""


class DeviceColumns(PathColumns):
    """The columns of a range on a device.

    Args:
        matrix: The columns.
        fetch: Adds columns to the core.
        before: (n,) how near each column was to becoming active when it was last known.
        score: (n,) raised to how near each column comes to becoming active at any α.
    """

    def __init__(self, matrix: Matrix, fetch: Fetch, before: torch.Tensor, score: torch.Tensor) -> None:
        super().__init__(matrix.num_rows, matrix.num_columns)
        self._matrix, self._fetch, self._before, self._score = matrix, fetch, before, score
        self._held = matrix.empty(torch.bool)

    cheap_checks = True

    @property
    def beyond_rows(self) -> WorkingSet:
        """The core, which takes in violators until there are none."""
        return self.core

    def places(self, ids: Positions) -> Positions:
        """Positions in the range are the places."""
        return ids

    def nearest(self, count: int) -> Positions:
        """See :class:`PathColumns`."""
        return self._matrix.nearest(self._before, count)

    def join(self, places: Positions) -> None:
        """See :class:`PathColumns`."""
        new = places[~np.isin(places, self.core.ids)]
        self._fetch(new, self.core)
        self._held[torch.from_numpy(new).to(self._held.device)] = True

    def check(self, task: Task, solutions: Sequence[Solution]) -> list[tuple[float, Positions]]:
        """See :class:`PathColumns`. The core's part of the peak is that of the solution, which minimizes over it."""
        if not solutions:
            return []
        bounds = [len(task.target) * solution.penalty.l1 for solution in solutions]
        vectors = np.stack([task.vector(s) / bound for s, bound in zip(solutions, bounds, strict=True)])
        count = VIOLATORS
        if any(solution.penalty.l2 > 0 for solution in solutions):
            # The support of an elastic net has no limit: let the core grow geometrically.
            count = max(count, self.core.size // 2)
        shifts = [solution.shift for solution in solutions]
        shares, places = self._matrix.worst(vectors, task.sign, count, self._held, self._score, shifts)
        found = []
        for k, (solution, bound) in enumerate(zip(solutions, bounds, strict=True)):
            peak = max(solution.peak, bound * float(shares[k].max(initial=0.0)))
            found.append((peak, places[k][shares[k] > 1 + KKT_MARGIN]))
        return found
