"""The rows of one shard while they are being recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causalprune.trajectory.steps import STEP_FIELDS

if TYPE_CHECKING:
    import torch


def on_device(value: object) -> bool:
    """Whether a value is a tensor on a GPU, which can be copied without waiting for what computes it."""
    return bool(getattr(value, "is_cuda", False))


def _page_locked(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Memory that a GPU copies into while the program goes on."""
    import torch

    return torch.empty(shape, dtype=dtype, pin_memory=True)


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
        self._copies: dict[torch.device, torch.cuda.Event] = {}
        self._required: list[tuple[torch.Tensor, Exception]] = []
        self._tensors: tuple[torch.Tensor, torch.Tensor] | None = None
        self._pinned = pinned
        if pinned:
            self._pin(rows, columns, declared)
        else:
            self.values = np.empty((rows, columns), np.float32)
            self.scalars = np.empty((rows, len(STEP_FIELDS) + declared), np.float64)

    def _pin(self, rows: int, columns: int, declared: int) -> None:
        import torch

        values = _page_locked((rows, columns), torch.float32)
        scalars = _page_locked((rows, len(STEP_FIELDS) + declared), torch.float64)
        self._tensors, self.values, self.scalars = (values, scalars), values.numpy(), scalars.numpy()
        self._pinned = True

    def pin(self) -> None:
        """Move to page-locked memory, as when the first rows of a resumed recording were read before a GPU was seen."""
        if not self._pinned:
            values, scalars = self.values, self.scalars
            self._pin(*values.shape, scalars.shape[1] - len(STEP_FIELDS))
            self.values[: self.rows], self.scalars[: self.rows] = values[: self.rows], scalars[: self.rows]

    def reuse(self, shard: int) -> None:
        """Empty the block for another shard."""
        self.shard, self.rows, self._required = shard, 0, []
        self._copies.clear()

    def put_delta(self, delta: np.ndarray | torch.Tensor) -> None:
        """Copy (P_active,) values into the next row, unless they are that row; from a device, asynchronously."""
        row = self.values[self.rows]
        if isinstance(delta, np.ndarray):
            if delta.ctypes.data != row.ctypes.data:
                np.copyto(row, delta, casting="same_kind")
        elif delta.data_ptr() != row.ctypes.data:
            self._of_torch()[0][self.rows].copy_(delta.detach(), non_blocking=delta.is_cuda)
            self._note_copy(delta)

    def put_scalar(self, position: int, value: torch.Tensor) -> None:
        """Copy one value into the next row, asynchronously."""
        self._of_torch()[1][self.rows, position].copy_(value.detach().reshape(()), non_blocking=True)
        self._note_copy(value)

    def require_not(self, flag: torch.Tensor, error: Exception) -> None:
        """Let :meth:`wait` raise an error if a flag on a device is set."""
        import torch

        # Copied now, so that the thread which reads it waits for no more than this block's copies.
        self._required.append((_page_locked((), torch.bool).copy_(flag, non_blocking=True), error))
        self._note_copy(flag)

    def wait(self) -> None:
        """Wait until every copy into the block is done.

        Raises:
            Exception: What :meth:`require_not` was given.
        """
        for event in self._copies.values():
            event.synchronize()
        for flag, error in self._required:
            if flag.numpy():
                raise error

    def _of_torch(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._tensors is None:
            import torch

            self._tensors = torch.from_numpy(self.values), torch.from_numpy(self.scalars)
        return self._tensors

    def _note_copy(self, source: torch.Tensor) -> None:
        if source.is_cuda:
            import torch

            if source.device not in self._copies:
                # The thread that waits sleeps meanwhile.
                self._copies[source.device] = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._copies[source.device].record(torch.cuda.current_stream(source.device))
