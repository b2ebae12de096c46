"""The processes that fit together, each with its own blocks of columns.

The first one gathers the columns that may be active and solves; all get the same bytes of every solution, each bounds
its own columns' correlations with it, and the largest bound over all of them enters the gap. All arrays lie in host
memory and travel by gloo. Blocks of columns, counted from column 0 of X, go round the processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from causalprune.base.runtime import Processes, control_group
from causalprune.solver.path import Task
from causalprune.solver.source import Float32
from causalprune.solver.working_set import SLAB, ColumnScales, Positions, WorkingSet

if TYPE_CHECKING:
    import torch


Anything = TypeVar("Anything")


class ProcessGroup:
    """The members of a fit, seen from one of them. What isn't a property must be called by all of them in turn.

    Args:
        own: Which of the processes this is; the only one when left out.
    """

    def __init__(self, own: Processes | None = None) -> None:
        own = own or Processes()
        self.rank, self.count = own.rank, own.count

    @property
    def is_first(self) -> bool:
        """Whether this is the one that solves."""
        return self.rank == 0

    def owner(self, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Whose blocks those are."""
        return blocks % self.count

    def maximum(self, *values: float) -> list[float]:
        """The largest of each value over the members."""
        return self._reduce(values, "MAX")

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over the members."""
        return self._reduce(values, "SUM")

    def _reduce(self, values: tuple[float, ...], operation: str) -> list[float]:
        if self.count == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor([float(v) for v in values], dtype=torch.float64)
        dist.all_reduce(tensor, op=getattr(dist.ReduceOp, operation), group=control_group())
        return [float(n) for n in tensor.tolist()]

    def broadcast(self, thing: Anything) -> Anything:
        """What the first member has."""
        if self.count == 1:
            return thing
        import torch.distributed as dist

        things = [thing]
        dist.broadcast_object_list(things, 0, group=control_group())
        return things[0]

    def other_ranks(self) -> Iterator[int]:
        """The members that send to the first."""
        return iter(range(1, self.count))

    def send(self, array: npt.NDArray[Any]) -> None:
        """Send an array to the first member, which calls :meth:`receive`."""
        import torch
        import torch.distributed as dist

        dist.send(torch.tensor([array.size]), 0, group=control_group())
        if array.size:
            dist.send(torch.from_numpy(np.ascontiguousarray(array).reshape(-1)), 0, group=control_group())

    def receive(self, sender: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
        """An array that a member sends, as one of a single axis."""
        import torch
        import torch.distributed as dist

        size: torch.Tensor = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, sender, group=control_group())
        array = np.empty(int(size), dtype)
        if array.size:
            dist.recv(torch.from_numpy(array), sender, group=control_group())
        return array


@dataclass(frozen=True)
class Division:
    """A range of columns of X, divided among a group; positions are counted from the range's first column.

    Attributes:
        start: First column of the range in X.
        stop: Column after its last.
        block_width: Columns of a block.
        group: The processes.
    """

    start: int
    stop: int
    block_width: int
    group: ProcessGroup

    @property
    def num_columns(self) -> int:
        """Columns of the range."""
        return self.stop - self.start

    def own_spans(self) -> dict[int, tuple[int, int]]:
        """First column and the one after the last, within the range, of each of this process's blocks, by number."""
        width = self.block_width
        return {
            number: (max(number * width, self.start) - self.start, min((number + 1) * width, self.stop) - self.start)
            for number in range(self.start // width, -(-self.stop // width))
            if self.group.owner(np.array(number)) == self.group.rank
        }

    def numbers(self, ids: Positions) -> npt.NDArray[np.int64]:
        """Numbers of the blocks that columns are in."""
        return (ids + self.start) // self.block_width

    def owners(self, ids: Positions) -> npt.NDArray[np.int64]:
        """Whose blocks columns are in."""
        return self.group.owner(self.numbers(ids))

    def columns_of(self, member: int) -> npt.NDArray[np.bool_]:
        """(n,) the columns in a process's blocks."""
        numbers = np.arange(self.start // self.block_width, -(-self.stop // self.block_width))
        theirs = np.repeat(self.group.owner(numbers) == member, self.block_width)
        first = self.start % self.block_width
        return theirs[first : first + self.num_columns]

    def quotas(self, capacity: int) -> tuple[int, int]:
        """How many columns this process may hold of its own blocks, and in all: the first one holds those of others.

        Args:
            capacity: Columns that may be held in all, divided alike among the processes.
        """
        if capacity >= self.num_columns:
            own = sum(stop - start for start, stop in self.own_spans().values())
            return own, self.num_columns if self.group.is_first else own
        others = self.group.count - 1
        of_others = max(1, capacity // self.group.count)
        if not self.group.is_first:
            return of_others, of_others
        own = max(1, capacity - others * of_others)
        return own, own + others * of_others


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
