"""Several processes that fit together: each reads its own blocks of columns, the first one solves.

The first process gathers the columns that may become active, and solves. All receive the same bytes of every solution,
each bounds the correlations of its own columns with it, and the largest bound over all processes enters the duality
gap. Block b, counted from column 0 of X, belongs to process b mod n. Arrays are in host memory and are sent with gloo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from causalprune.base.compute.runtime import Processes, control_group
from causalprune.solver.path import Task
from causalprune.solver.source import Float32
from causalprune.solver.working_set import SLAB, ColumnScales, Positions, WorkingSet

if TYPE_CHECKING:
    import torch


Value = TypeVar("Value")


class ProcessGroup:
    """The processes of a fit, as one of them sees the group. All of them must call each collective method.

    Args:
        own: Which of the processes this is; by default the only one.
    """

    def __init__(self, own: Processes | None = None) -> None:
        own = own or Processes()
        self.rank, self.count = own.rank, own.count

    @property
    def is_first(self) -> bool:
        """Whether this is the process that solves."""
        return self.rank == 0

    def maximum(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        return self._reduce(values, "MAX")

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        return self._reduce(values, "SUM")

    def _reduce(self, values: tuple[float, ...], operation: str) -> list[float]:
        if self.count == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor([float(v) for v in values], dtype=torch.float64)
        dist.all_reduce(tensor, op=getattr(dist.ReduceOp, operation), group=control_group())
        return [float(n) for n in tensor.tolist()]

    def broadcast(self, value: Value) -> Value:
        """The first process's value, at every process."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, 0, group=control_group())
        return values[0]

    def send(self, array: npt.NDArray[Any]) -> None:
        """Send an array to the first process, which calls :meth:`receive`."""
        import torch
        import torch.distributed as dist

        dist.send(torch.tensor([array.size]), 0, group=control_group())
        if array.size:
            dist.send(torch.from_numpy(np.ascontiguousarray(array).reshape(-1)), 0, group=control_group())

    def receive(self, sender: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
        """Receive, flattened, the array that a process sends."""
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
    """How a range of columns of X is divided among processes; positions count from the range's first column.

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
        """(first column, stop) of the part of each of this process's blocks in the range, by block number."""
        width = self.block_width
        return {
            number: (max(number * width, self.start) - self.start, min((number + 1) * width, self.stop) - self.start)
            for number in range(self.start // width, -(-self.stop // width))
            if number % self.group.count == self.group.rank
        }

    def numbers(self, ids: Positions) -> npt.NDArray[np.int64]:
        """(n,) number of each column's block."""
        return (ids + self.start) // self.block_width

    def owners(self, ids: Positions) -> npt.NDArray[np.int64]:
        """(n,) rank of the process of each column's block."""
        return self.numbers(ids) % self.group.count

    def columns_of(self, rank: int) -> npt.NDArray[np.bool_]:
        """(n,) True for the columns in the blocks of a process."""
        numbers = np.arange(self.start // self.block_width, -(-self.stop // self.block_width))
        theirs = np.repeat(numbers % self.group.count == rank, self.block_width)
        return theirs[self.start % self.block_width :][: self.num_columns]

    def quotas(self, capacity: int) -> tuple[int, int]:
        """How many columns of its own blocks this process may hold, and how many in all.

        They differ for the first process, which also holds the columns of the others.

        Args:
            capacity: Columns that all processes may hold together, divided evenly among them.
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
    """Exchanges a region's columns and solutions with the other processes, which must make the same calls.

    Args:
        division: The region's columns.
        scales: Their scales.
        working: This process's working set.

    Attributes:
        group: The processes.
    """

    def __init__(self, division: Division, scales: ColumnScales, working: WorkingSet) -> None:
        self._division, self._scales, self._working_set = division, scales, working
        self.group = division.group
        self._sent: Positions = np.empty(0, np.int64)

    def gather(self) -> None:
        """Bring the columns of all working sets to the first process's; the others send those that it lacks."""
        if self.group.is_first:
            for sender in range(1, self.group.count):
                self._receive(sender)
            return
        working = self._working_set
        rows = np.flatnonzero(~np.isin(working.ids, self._sent))
        self._sent = working.ids.copy()
        for array in (working.ids, working.ids[rows], self._scales.norm[working.ids[rows]], working.score[rows]):
            self.group.send(array)
        for start in range(0, len(rows), SLAB):
            self.group.send(working.raw_columns(rows[start : start + SLAB]))

    def _receive(self, sender: int) -> None:
        working = self._working_set
        held = self.group.receive(sender, np.int64)
        working.keep((self._division.owners(working.ids) != sender) | np.isin(working.ids, held))
        ids, norms = self.group.receive(sender, np.int64), self.group.receive(sender, np.float64)
        score = self.group.receive(sender, np.float64)
        self._scales.norm[ids] = norms
        scale, scaled_norm = self._scales.of(ids)
        for start in range(0, len(ids), SLAB):
            part = slice(start, start + SLAB)
            values = self.group.receive(sender, np.float32).reshape(-1, working.num_rows).T
            working.add(values, ids[part], scale[part], scaled_norm[part], score[part])

    def broadcast(self, tasks: list[Task]) -> None:
        """Give the first process's solutions, and the scores of the columns in its working set, to all."""
        working = self._working_set
        solutions, ids, score = self.group.broadcast(([t.solutions for t in tasks], working.ids, working.score))
        if self.group.is_first:
            return
        for task, own in zip(tasks, solutions, strict=True):
            task.solutions = own
        places = working.places(ids)
        working.score[places[places >= 0]] = score[places >= 0]

    def collect(self, values: Float32) -> None:
        """Fill in ``values`` (n,) at the first process with the other processes' values for their own columns."""
        if not self.group.is_first:
            self.group.send(values[self._division.columns_of(self.group.rank)])
            return
        for sender in range(1, self.group.count):
            values[self._division.columns_of(sender)] = self.group.receive(sender, np.float32)
