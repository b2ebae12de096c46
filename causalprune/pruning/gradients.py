"""Minibatch gradients from a recording, without a new backward pass.

Plain SGD steps by Δθ_t = −η_t·g_t, so g_t = −Δθ_t/η_t is the gradient of minibatch t. This doesn't hold with momentum,
weight decay or another optimizer, and a row that covers several steps (a stride) holds their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError
from causalprune.trajectory.steps.learning_rates import LearningRates

Floats = npt.NDArray[np.floating]
Blocks = Iterator[tuple[int, Floats]]

BLOCK_VALUES = 2**22
"""Number of values in a block of gradients that is processed at once: 32 MiB in float64."""


def mean_squared_gradient(
    blocks: Iterable[tuple[int, Floats]], lr: LearningRates, num_columns: int
) -> npt.NDArray[np.float64]:
    """Diagonal of the empirical Fisher matrix, (1/T)·Σ_t g_t², of a plain-SGD recording.

    Args:
        blocks: All rows in blocks, in any order: the number of the first row, and signed deltas (rows, num_columns).
        lr: Of each row and column.
        num_columns: Number of columns.

    Returns:
        (num_columns,) float64, in units of loss² per weight².

    Raises:
        DataError: No rows, or a learning rate that isn't a finite number above 0.
    """
    if len(lr) == 0:
        raise DataError("recording", expected="at least one step", found="none", remedy="record first")
    _check_rates(lr)
    total = np.zeros(num_columns)
    for first, block in blocks:
        for number, row in enumerate(block, first):
            (rate,) = lr.block(slice(number, number + 1), slice(None))
            total += np.square(row / rate, dtype=np.float64)
    return total / len(lr)


@dataclass(frozen=True, eq=False)
class GradientMatrix:
    """A: the gradients g_t of n minibatches as rows, read in blocks of columns, so that A need not fit in memory.

    Attributes:
        num_rows: n.
        columns: (C,) int64, increasing: the parameter of each column. The gradients of all other parameters are zero.
        read: Takes None for all columns, or increasing column numbers in 0 … C−1. Yields blocks in any order: the
            position of the block's first column among the requested ones, and (n, width) gradients.
    """

    num_rows: int
    columns: npt.NDArray[np.int64]
    read: Callable[[npt.NDArray[np.int64] | None], Blocks]

    @classmethod
    def from_array(cls, matrix: Floats, columns: npt.NDArray[np.int64] | None = None) -> GradientMatrix:
        """Wrap an (n, C) matrix in memory; by default its columns are the parameters 0 … C−1."""
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
        lr: LearningRates,
        columns: npt.NDArray[np.int64],
        *,
        max_rows: int,
        max_bytes: int,
    ) -> GradientMatrix:
        """Read the gradients of a plain-SGD recording, g_t = −Δθ_t/η_t.

        Args:
            blocks: Reads signed deltas the way ``read`` reads gradients.
            lr: Of each row and column.
            columns: See the class.
            max_rows: Largest n; from a longer recording, this many evenly spaced rows are used.
            max_bytes: A float32 matrix of up to this size is read once and kept; a larger one is read from the store
                in each pass.

        Raises:
            DataError: Fewer than 2 rows, or a learning rate that isn't a finite number above 0.
        """
        _check_rates(lr)
        if len(lr) < 2:
            raise DataError("recording", expected="at least 2 rows", found=str(len(lr)), remedy="record more `steps`")
        count = min(len(lr), max_rows)
        rows = np.arange(count) * len(lr) // count

        def read(chosen: npt.NDArray[np.int64] | None) -> Blocks:
            for first, block in blocks(chosen):
                part: Any = slice(first, first + block.shape[1])
                scale = (-1 / lr.block(rows, part if chosen is None else chosen[part])).astype(np.float32)
                yield first, (block if count == len(block) else block[rows]) * scale

        if 4 * count * len(columns) > max_bytes:
            return cls(count, columns, read)
        matrix = np.empty((count, len(columns)), np.float32)
        for first, block in read(None):
            matrix[:, first : first + block.shape[1]] = block
        return cls.from_array(matrix, columns)

    def dot(self, vector: Floats, columns: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
        """A·v restricted to ``columns`` (default: all), with one element of ``vector`` per column: (n,)."""
        total = np.zeros(self.num_rows)
        for first, block in self.read(columns):
            total += block @ vector[first : first + block.shape[1]].astype(np.float64)
        return total

    def dot_transposed(self, vector: Floats, columns: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
        """Aᵀ·u restricted to ``columns`` (default: all): one value per column."""
        total = np.zeros(len(self.columns) if columns is None else len(columns))
        for first, block in self.read(columns):
            total[first : first + block.shape[1]] = vector.astype(np.float64) @ block
        return total

    def gram(self, columns: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
        """A·Aᵀ restricted to ``columns`` (default: all): (n, n)."""
        total = np.zeros((self.num_rows, self.num_rows))
        for _, block in self.read(columns):
            wide = block.astype(np.float64)
            total += wide @ wide.T
        return total

    def quadratic(self, matrix: Floats) -> npt.NDArray[np.float64]:
        """A_kᵀ·M·A_k for each column k, where ``matrix`` is M, (n, n): (C,)."""
        total = np.empty(len(self.columns))
        for first, block in self.read(None):
            total[first : first + block.shape[1]] = np.einsum("ij,ij->j", block, matrix @ block)
        return total


def _check_rates(lr: LearningRates) -> None:
    if not (np.isfinite(lr.by_group).all() and (lr.by_group > 0).all()):
        raise DataError("recorded learning rates", expected="finite numbers above 0", found="another value")
