"""Minibatch gradients from a recording, without a new backward pass, and the curvature along them.

Plain SGD steps by Δθ_t = −η_t·g_t, so g_t = −Δθ_t/η_t is the gradient of minibatch t. This doesn't hold with momentum,
weight decay or another optimizer, and a row that covers several steps (a stride) holds their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError
from causalprune.trajectory.steps import Steps
from causalprune.trajectory.steps.learning_rates import LearningRates
from causalprune.trajectory.steps.rounding import ROUNDINGS

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
        curvature: What held steps measured along each row; None if the rows are of other steps.
        identity: Equal for the same rows of the same recording; empty if nobody knows.
        max_bytes: Largest matrix to hold in memory; 0 where A is there already.
    """

    num_rows: int
    columns: npt.NDArray[np.int64]
    read: Callable[[npt.NDArray[np.int64] | None], Blocks]
    curvature: MeasuredCurvature | None = None
    identity: str = ""
    max_bytes: int = 0

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
        curvature: MeasuredCurvature | None = None,
        identity: str = "",
    ) -> GradientMatrix:
        """Read the gradients of a plain-SGD recording, g_t = −Δθ_t/η_t.

        Args:
            blocks: Reads signed deltas the way ``read`` reads gradients.
            lr: Of each row and column.
            columns: See the class.
            max_rows: Largest n; from a longer recording, this many evenly spaced rows are used.
            max_bytes: A float32 matrix of up to this size is read once and kept; a larger one is read from the store
                in each pass.
            curvature: Of all rows, if they are of held steps.
            identity: Of the recording; empty if nobody knows.

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

        if curvature is not None:
            curvature = MeasuredCurvature(curvature.values[rows], curvature.noisy[rows])
        known = f"{count} rows of {identity}" if identity else ""
        whole = cls(count, columns, read, curvature, known, max_bytes)
        held = whole.narrowed(None)
        return whole if held is None else held

    def narrowed(self, chosen: npt.NDArray[np.int64] | None) -> GradientMatrix | None:
        """These columns (None for all) in memory, numbered anew; None if they don't fit, or A is there already."""
        columns = self.columns if chosen is None else self.columns[chosen]
        if 4 * self.num_rows * len(columns) > self.max_bytes:
            return None
        matrix = np.empty((self.num_rows, len(columns)), np.float32)
        for first, block in self.read(chosen):
            matrix[:, first : first + block.shape[1]] = block
        return replace(self.from_array(matrix, columns), curvature=self.curvature, identity=self.identity)

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


TOLERABLE = 0.1
"""Share of a second-order change up to which rounding, or of a first-order change up to which the second order, is
small."""


@dataclass(frozen=True, eq=False)
class MeasuredCurvature:
    """The curvature of the loss of each minibatch along its gradient.

    Attributes:
        values: (T,) float64, d_t = g_tᵀH_tg_t/‖g_t‖⁴ in units of 1/loss; 0 where the gradient is 0.
        noisy: (T,) bool, where rounding decides, or the step is too long for an order of its own.
    """

    values: npt.NDArray[np.float64]
    noisy: npt.NDArray[np.bool_]


def measured_curvature(steps: Steps, precision: str = "float64") -> MeasuredCurvature:
    """d_t = 2·c_t/(η_t·‖g_t‖²)² with c_t = ΔL_t + η_t‖g_t‖², from the loss changes of held steps alone.

    To second order a step −ηg changes the loss by −η‖g‖² + ½η²·gᵀHg; with η‖g‖² = s·L the error of d_t is O(s). The
    empirical Fisher matrix Σ g_t g_tᵀ stands for a Hessian with d_t = 1; Σ d_t·g_t g_tᵀ has the curvature that was
    measured. For one sample of a classifier, whose label has the probability p, d is about p/(1 − p).

    A row is noisy if c_t is no larger than ten times what it may be off by, 32 units of the last place of the losses
    (of 1 for a loss below 1), or larger than a tenth of η‖g‖²; or if its gradient is 0.

    Args:
        steps: Of a held recording.
        precision: Of its losses, ``float64`` or ``float32``.
    """
    first, change = steps.lr * steps.grad_norm**2, steps.second_order_change
    off = 2 * ROUNDINGS * float(np.finfo(precision).eps) * np.maximum(1.0, np.abs(steps.loss_before))
    moved = first > 0
    values = np.divide(2 * change, np.square(first), where=moved, out=np.zeros(len(steps)))
    noisy = ~moved | (off > TOLERABLE * np.abs(change)) | (np.abs(change) > TOLERABLE * first)
    return MeasuredCurvature(values, noisy)


def _check_rates(lr: LearningRates) -> None:
    if not (np.isfinite(lr.by_group).all() and (lr.by_group > 0).all()):
        raise DataError("recorded learning rates", expected="finite numbers above 0", found="another value")
