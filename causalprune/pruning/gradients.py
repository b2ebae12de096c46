"""Gradients from a recording, without a single new backward pass.

Plain SGD steps by Δθ_t = −η_t·g_t, so that g_t = −Δθ_t/η_t is the gradient of minibatch t. That doesn't hold with
momentum, weight decay or another optimizer, and a row of several steps (a stride) has their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError

Floats = npt.NDArray[np.floating]
Blocks = Iterator[tuple[int, Floats]]

BLOCK_VALUES = 2**22
"""Values of a block of gradients that is worked on at once: 32 MiB in float64."""


def mean_squared_gradient(blocks: Iterable[tuple[Floats, Floats]]) -> npt.NDArray[np.float64]:
    """Diagonal of the empirical Fisher matrix, (1/T)·Σ_t g_t², of a plain-SGD recording.

    Args:
        blocks: Blocks of rows in any order: signed deltas (rows, columns) and learning rates (rows,).

    Returns:
        (columns,) float64, in units of loss² per weight².

    Raises:
        DataError: No rows, or a learning rate that isn't a finite number above 0.
    """
    total: npt.NDArray[np.float64] | None = None
    rows = 0
    for delta, lr in blocks:
        _check_rates(lr)
        if total is None:
            total = np.zeros(delta.shape[1])
        for row, rate in zip(delta, lr, strict=True):
            total += np.square(row / rate, dtype=np.float64)
        rows += len(delta)
    if total is None or rows == 0:
        raise DataError("recording", expected="at least one step", found="none", remedy="record first")
    return total / rows


@dataclass(frozen=True, eq=False)
class GradientMatrix:
    """A: the gradients g_t of n minibatches as rows, read by blocks of columns, so that A need not fit in memory.

    Attributes:
        num_rows: n.
        columns: (C,) int64, increasing: which of the P parameters the columns are. The others' gradients are zero.
        read: Takes None, or increasing column numbers in 0 … C−1; yields (position of the block's first column in what
            was asked for, (n, width) gradients), all of them, in any order.
    """

    num_rows: int
    columns: npt.NDArray[np.int64]
    read: Callable[[npt.NDArray[np.int64] | None], Blocks]

    @classmethod
    def from_array(cls, matrix: Floats, columns: npt.NDArray[np.int64] | None = None) -> GradientMatrix:
        """A matrix (n, C) in memory; its columns are the parameters 0 … C−1 when ``columns`` is left out."""
        width = max(1, BLOCK_VALUES // max(1, len(matrix)))

        def read(chosen: npt.NDArray[np.int64] | None) -> Blocks:
            count = matrix.shape[1] if chosen is None else len(chosen)
            for start in range(0, count, width):
                part: Any = slice(start, start + width) if chosen is None else chosen[start : start + width]
                yield start, matrix[:, part]

        return cls(len(matrix), np.arange(matrix.shape[1]) if columns is None else columns, read)

    @classmethod
    def from_deltas(
        cls,
        blocks: Callable[[npt.NDArray[np.int64] | None], Blocks],
        lr: Floats,
        columns: npt.NDArray[np.int64],
        *,
        max_rows: int,
        max_bytes: int,
    ) -> GradientMatrix:
        """The gradients of a plain-SGD recording, g_t = −Δθ_t/η_t.

        Args:
            blocks: Reads signed deltas as ``read`` reads gradients.
            lr: (T,) learning rates.
            columns: See the class.
            max_rows: Of a longer recording, so many evenly spaced rows.
            max_bytes: A matrix in float32 of up to so many bytes is read once and kept; a larger one is read again from
                the store in every pass.

        Raises:
            DataError: Fewer than 2 rows, or a learning rate that isn't a finite number above 0.
        """
        _check_rates(lr)
        if len(lr) < 2:
            raise DataError("recording", expected="at least 2 rows", found=str(len(lr)), remedy="record more `steps`")
        count = min(len(lr), max_rows)
        rows = np.arange(count) * len(lr) // count
        scale = (-1 / lr[rows]).astype(np.float32)[:, None]

        def read(chosen: npt.NDArray[np.int64] | None) -> Blocks:
            for first, block in blocks(chosen):
                yield first, (block if count == len(block) else block[rows]) * scale

        if 4 * count * len(columns) > max_bytes:
            return cls(count, columns, read)
        matrix = np.empty((count, len(columns)), np.float32)
        for first, block in read(None):
            matrix[:, first : first + block.shape[1]] = block
        return cls.from_array(matrix, columns)

    def dot(self, vector: Floats, columns: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
        """A·v over these columns (all when left out), ``vector`` having one value for each: (n,)."""
        total = np.zeros(self.num_rows)
        for first, block in self.read(columns):
            total += block @ vector[first : first + block.shape[1]].astype(np.float64)
        return total

    def dot_transposed(self, vector: Floats, columns: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
        """Aᵀ·u for these columns (all when left out): one value for each."""
        total = np.zeros(len(self.columns) if columns is None else len(columns))
        for first, block in self.read(columns):
            total[first : first + block.shape[1]] = vector.astype(np.float64) @ block
        return total

    def gram(self, columns: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
        """A·Aᵀ over these columns (all when left out): (n, n)."""
        total = np.zeros((self.num_rows, self.num_rows))
        for _, block in self.read(columns):
            wide = block.astype(np.float64)
            total += wide @ wide.T
        return total

    def quadratic(self, matrix: Floats) -> npt.NDArray[np.float64]:
        """A_kᵀ·M·A_k for every column k, ``matrix`` being M, (n, n)."""
        total = np.empty(len(self.columns))
        for first, block in self.read(None):
            total[first : first + block.shape[1]] = np.einsum("ij,ij->j", block, matrix @ block)
        return total


def _check_rates(lr: Floats) -> None:
    if not (np.isfinite(lr).all() and (lr > 0).all()):
        raise DataError("recorded learning rates", expected="finite numbers above 0", found="another value")
