"""The rows of one shard while they are being recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from causalprune.trajectory.steps import STEP_FIELDS

if TYPE_CHECKING:
    import torch


class RowBlock:
    """A buffer of B rows of deltas and of step scalars.

    Args:
        rows: B.
        columns: P_active.
        pinned: Whether the memory is page-locked, so that a GPU can copy into it asynchronously.
        declared: How many scalars rows have besides the usual ones.

    Attributes:
        shard: Number of the shard that the rows will become.
        rows: How many are filled.
        values: (B, P_active) float32.
        scalars: (B, 6 + declared) float64: :data:`~causalprune.trajectory.steps.STEP_FIELDS`, then the declared ones.
    """

    def __init__(self, rows: int, columns: int, *, pinned: bool, declared: int = 0) -> None:
        self.shard = 0
        self.rows = 0
        self._wait: Callable[[], None] | None = None
        self.scalars = np.empty((rows, len(STEP_FIELDS) + declared), np.float64)
        self._tensor: torch.Tensor | None = None
        if pinned:
            import torch

            self._tensor = torch.empty((rows, columns), dtype=torch.float32, pin_memory=True)
            self.values = self._tensor.numpy()
        else:
            self.values = np.empty((rows, columns), np.float32)

    def reuse(self, shard: int) -> None:
        """Empty the block for another shard."""
        self.shard, self.rows, self._wait = shard, 0, None

    def put_delta(self, delta: np.ndarray | torch.Tensor) -> None:
        """Copy (P_active,) values into the next row, unless they are that row."""
        row = self.values[self.rows]
        if isinstance(delta, np.ndarray):
            if delta.ctypes.data != row.ctypes.data:
                np.copyto(row, delta, casting="same_kind")
        elif delta.data_ptr() != row.ctypes.data:
            import torch

            if self._tensor is None:
                self._tensor = torch.from_numpy(self.values)
            self._tensor[self.rows].copy_(delta.detach(), non_blocking=True)
            if delta.is_cuda:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(delta.device))
                self._wait = event.synchronize

    def wait(self) -> None:
        """Wait until every copy into the block is done."""
        if self._wait is not None:
            self._wait()
