"""The processes among which DistributedDataParallel divides a minibatch: their mean loss, and which of them writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from causalprune.base.errors import UsageError
from causalprune.trajectory import RecordingWriter

Result = TypeVar("Result")


class Ranks:
    """The processes that train a network together; a network without DistributedDataParallel has one.

    Gradients are averages over them, so the loss of a step is, too.

    Args:
        model: What the loop calls.
    """

    def __init__(self, model: nn.Module) -> None:
        wrapper = next((m for m in model.modules() if isinstance(m, DistributedDataParallel)), None)
        self._group = None if wrapper is None else wrapper.process_group
        self._count = 1 if wrapper is None else torch.distributed.get_world_size(self._group)
        self._device = next(model.parameters()).device

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""
        return 0 if self._count == 1 else torch.distributed.get_rank(self._group)

    def partners(self) -> ColumnPartners:
        """These processes, two or more, connected to write a recording together. All must call this."""
        return ColumnPartners(self._group)

    def mean(self, loss: float) -> float:
        """The mean of a loss over the processes, all of which must call this."""
        if self._count == 1:
            return loss
        return self._sum(loss) / self._count

    def mean_on_device(self, loss: torch.Tensor) -> torch.Tensor:
        """As :meth:`mean`, of a loss that stays on its device."""
        total = loss.detach().clone()
        if self._count > 1:
            torch.distributed.all_reduce(total, group=self._group)
        return total / self._count

    def first(self, action: Callable[[], Result]) -> Result | None:
        """Let the first process do something while the others wait; returns what it returned, None in the others.

        Raises:
            UsageError: In the others, if it failed there.
        """
        if self._count == 1:
            return action()
        result: Result | None = None
        failure: BaseException | None = None
        if self.rank == 0:
            try:
                result = action()
            except BaseException as error:
                failure = error
        failed = self._sum(float(failure is not None))
        if failure is not None:
            raise failure
        if failed:
            raise UsageError("Recorder", expected="the first process to begin", found="an error in it, which it prints")
        return result

    def _sum(self, value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(total, group=self._group)
        return float(total)


_PATIENCE = timedelta(hours=6)
"""How long a process may be ahead of the others; one that ends is noticed at once."""


class ColumnPartners:
    """Processes that write a recording together, connected for nothing else, because threads use the connection.

    Args:
        group: The process group; None for all processes.

    Attributes:
        rank: See :class:`causalprune.trajectory.columns.parts.Partners`.
        count: See there.
    """

    def __init__(self, group: Any = None) -> None:
        ranks = torch.distributed.get_process_group_ranks(group or torch.distributed.group.WORLD)
        self._group: Any = torch.distributed.new_group(
            ranks,
            timeout=_PATIENCE,
            backend="gloo",
            use_local_synchronization=len(ranks) < torch.distributed.get_world_size(),
        )
        self.rank, self.count = ranks.index(torch.distributed.get_rank()), len(ranks)

    def gather(self, value: Any) -> list[Any]:
        """The values of all of them, by rank."""
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value, group=self._group)
        return found

    def close(self) -> None:
        """End the connection."""
        torch.distributed.destroy_process_group(self._group)


class DiscardingWriter:
    """Drops its rows: the writer in all processes but the first, where that one writes all columns.

    Args:
        columns: P_active.
    """

    closed = False
    end_weights: Callable[[], str] = str
    untrained: tuple[str, ...] = ()
    noted: Mapping[str, Any] = {}

    def __init__(self, columns: int) -> None:
        self.rows_appended = 0
        self._row = np.empty(columns, np.float32)

    def row(self) -> np.ndarray:
        """Memory for a row, (P_active,) float32; the same for all rows."""
        return self._row

    def append(self, delta: torch.Tensor, **scalars: float | torch.Tensor) -> None:
        """Drop a row."""
        del delta, scalars
        self.rows_appended += 1

    def require_not(self, flag: torch.Tensor, error: Exception) -> None:
        """Leave the check to the process that writes: its weights are the same."""

    def flush(self) -> None:
        """Nothing to store."""

    finish = close = flush


Writer = RecordingWriter | DiscardingWriter


def require_whole(model: nn.Module) -> None:
    """Refuse a network whose weights are divided among processes: a row of Δθ needs them whole.

    Raises:
        UsageError: It is one of FSDP or of tensor parallelism.
    """
    kinds = {cls.__name__ for m in model.modules() for cls in type(m).__mro__ if cls is not nn.Module}
    kinds |= {cls.__name__ for parameter in model.parameters() for cls in type(parameter).__mro__}
    # Importing the classes takes a second.
    sharded = sorted(kinds & {"DTensor", "FullyShardedDataParallel"})
    if sharded:
        raise UsageError(
            "Recorder",
            expected="a network whose weights are whole in each process",
            found=f"sharded ones ({', '.join(sharded)})",
            remedy="record with DistributedDataParallel, or in one process",
        )
