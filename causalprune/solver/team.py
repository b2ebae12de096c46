"""The processes that fit together, each with its own blocks of columns.

The first one gathers the columns that may be active and solves; all get the same bytes of every solution, each bounds
its own columns' correlations with it, and the largest bound over all of them enters the gap. All arrays lie in host
memory and travel by gloo.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from causalprune.distributed import Processes, control_group

if TYPE_CHECKING:
    import torch

Anything = TypeVar("Anything")


class Team:
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

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over the members."""
        return self._reduce(values, "MAX")

    def total(self, *values: float) -> list[float]:
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

    def from_first(self, thing: Anything) -> Anything:
        """What the first member has."""
        if self.count == 1:
            return thing
        import torch.distributed as dist

        things = [thing]
        dist.broadcast_object_list(things, 0, group=control_group())
        return things[0]

    def others(self) -> Iterator[int]:
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
