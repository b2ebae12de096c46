"""The columns of X in the memory of a device: as float32, or as deltas with the store's own mantissa.

A delta that was rounded to m mantissa bits has 9 + m bits that aren't 0. They are kept in whole bytes, two for the
codec ``small`` and three for ``balanced``, and become float32 columns again, bit by bit those that the CPU would read,
a slab at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import torch

from causalprune.base.errors import DataError
from causalprune.solver.source import ColumnSource, Deltas, Float32

_COLUMN_BYTES = 48
"""On the device, per column: scale, score before and after, membership in the core; and the KKT scores at the end."""

WORKSPACE = 2**31
"""Bytes on the device for a slab of columns in float64 and its products, and for blocks on their way."""

Arrived = Callable[[int], None]
"""``arrived(n)``: called after n more columns of X are on the device."""


class Residents(ABC):
    """All columns of X on a device.

    Attributes:
        num_rows: T.
        num_columns: P.
        device: Where they are.
    """

    num_rows: int
    num_columns: int
    device: torch.device

    @abstractmethod
    def slab(self, start: int, stop: int) -> torch.Tensor:
        """Columns ``start`` to ``stop``, (stop − start, T) float32: one row for each column of X."""

    @abstractmethod
    def gather(self, columns: torch.Tensor) -> torch.Tensor:
        """The columns at positions (n,) int64: (n, T) float32."""


class FloatColumns(Residents):
    """Columns as float32.

    Args:
        source: X, which is read once.
        device: Where they go.
        width: Columns per block on the way.
        ahead: Blocks formed at the same time.
        arrived: Called after each block.
    """

    def __init__(self, source: ColumnSource, device: torch.device, *, width: int, ahead: int, arrived: Arrived) -> None:
        self.num_rows, self.num_columns, self.device = source.num_rows, source.num_columns, device
        self._values = torch.empty((self.num_columns, self.num_rows), dtype=torch.float32, device=device)
        send = _Sender(device)

        def put(first: int, block: Float32, _: None) -> int:
            count = int(block.shape[1])
            self._values[first : first + count].copy_(send(block).T)
            return count

        numbers = ((number, None) for number in range(-(-self.num_columns // width)))
        for count in source.map_blocks(put, numbers, width, ahead):
            arrived(count)

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """See :class:`Residents`."""
        return self._values[start:stop]

    def gather(self, columns: torch.Tensor) -> torch.Tensor:
        """See :class:`Residents`."""
        return self._values[columns]


class PackedDeltas(Residents):
    """Deltas in as few bytes as hold them exactly, of which columns are formed when they are needed.

    Args:
        deltas: Δθ, which is read once.
        device: Where they go.
        width: Columns per block on the way.
        arrived: Called after each block.

    Raises:
        DataError: A delta has more mantissa bits than its codec declares.
    """

    def __init__(self, deltas: Deltas, device: torch.device, *, width: int, arrived: Arrived) -> None:
        self._each = 3 if deltas.lags else 1
        self.num_rows, self.num_columns = deltas.num_rows - deltas.lags, self._each * deltas.num_columns
        self.device = device
        count = packed_bytes(deltas.mantissa_bits)
        self._planes = torch.empty((count, deltas.num_columns, deltas.num_rows), dtype=torch.uint8, device=device)
        self._shifts = [24 - 8 * plane for plane in range(count)]
        dropped = np.uint32((1 << (23 - deltas.mantissa_bits)) - 1)
        send = _Sender(device)
        for first, block in deltas.blocks(width):
            bits = np.ascontiguousarray(block).view(np.uint32)
            if (bits & dropped).any():
                declared = f"{deltas.mantissa_bits} mantissa bits, as its codec declares"
                raise DataError("recorded delta", expected=declared, found="more")
            for plane, shift in enumerate(self._shifts):
                part = (bits >> np.uint32(shift)).astype(np.uint8)
                self._planes[plane, first : first + block.shape[1]].copy_(send(part).T)
            arrived(self._each * block.shape[1])

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """See :class:`Residents`."""
        first = start // self._each
        columns = self._formed(self._planes[:, first : -(-stop // self._each)])
        return columns.flatten(0, 1)[start - self._each * first : stop - self._each * first]

    def gather(self, columns: torch.Tensor) -> torch.Tensor:
        """See :class:`Residents`."""
        formed = self._formed(self._planes[:, columns // self._each])
        return formed[torch.arange(len(columns), device=self.device), columns % self._each]

    def _formed(self, planes: torch.Tensor) -> torch.Tensor:
        """(n, 1 or 3, T) float32 columns of (bytes, n, rows) packed deltas, as in ``FeatureSource``."""
        bits = torch.zeros(planes.shape[1:], dtype=torch.int32, device=self.device)
        for plane, shift in zip(planes, self._shifts, strict=True):
            bits |= plane.to(torch.int32) << shift
        deltas = bits.view(torch.float32)
        if self._each == 1:
            return (deltas * deltas)[:, None]
        now, before = deltas[:, 1:], deltas[:, :-1]
        return torch.stack([now * now, before * before, now * before], dim=1)


class _Sender:
    """Sends blocks to a device through two page-locked buffers: one is filled while the other is on its way."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._idle: SimpleQueue[_Buffer] = SimpleQueue()
        for _ in range(2):
            self._idle.put(_Buffer(device))

    def __call__(self, block: npt.NDArray[np.float32 | np.uint8]) -> torch.Tensor:
        """A block (of the same dtype in every call) on the device; may be called in several threads."""
        buffer = self._idle.get()
        try:
            return buffer.send(block, self._device)
        finally:
            self._idle.put(buffer)


class _Buffer:
    def __init__(self, device: torch.device) -> None:
        self._memory = torch.empty(0)
        self._pinned = device.type == "cuda"
        self._sent = torch.cuda.Event() if self._pinned else None  # type: ignore[no-untyped-call]

    def send(self, block: npt.NDArray[np.float32 | np.uint8], device: torch.device) -> torch.Tensor:
        if self._sent is not None:
            self._sent.synchronize()
        dtype = torch.float32 if block.dtype == np.float32 else torch.uint8
        if self._memory.numel() < block.size:
            self._memory = torch.empty(block.size, dtype=dtype, pin_memory=self._pinned)
        held = self._memory[: block.size].view(block.shape)
        np.copyto(held.numpy(), block)
        there = held.to(device, non_blocking=True, copy=True)
        if self._sent is not None:
            self._sent.record(torch.cuda.current_stream(device))
        return there


def packed_bytes(mantissa_bits: int) -> int:
    """Bytes of a delta with so many mantissa bits, its sign and its exponent."""
    return -(-(9 + mantissa_bits) // 8)


def free_bytes(device: torch.device) -> float:
    """Free memory of a device; of the CPU, which isn't one, infinity."""
    if device.type != "cuda":
        return float("inf")
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def form_that_fits(source: ColumnSource, free: float) -> str | None:
    """How the columns fit into so many bytes: ``float32``, else ``packed``, else None: not at all."""
    room = 0.95 * free - WORKSPACE - _COLUMN_BYTES * source.num_columns
    if 4 * source.num_rows * source.num_columns <= room:
        return "float32"
    deltas = source.deltas
    if deltas is not None and packed_bytes(deltas.mantissa_bits) * deltas.num_rows * deltas.num_columns <= room:
        return "packed"
    return None
