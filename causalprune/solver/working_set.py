"""A bounded set of columns in memory: those that may be active, gathered while the store is scanned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import UsageError
from causalprune.base.units import format_bytes
from causalprune.solver.products import FLOAT32_ROUNDING, norm_error
from causalprune.solver.source import Float32, Float64

Positions = npt.NDArray[np.int64]

SLAB = 1024
"""Columns that are converted to float64, or moved, at a time."""


class WorkingSet:
    """Columns x_j of X in float32, each with the factor s_j of its scaled column x̃_j = s_j·x_j.

    Args:
        num_rows: T.
        capacity: Columns it can hold.

    Attributes:
        size: Columns that it holds.
    """

    def __init__(self, num_rows: int, capacity: int) -> None:
        self.num_rows = num_rows
        self.capacity = capacity
        self.size = 0
        self._values = np.empty((capacity, num_rows), np.float32)
        self._ids = np.empty(capacity, np.int64)
        self._scale = np.empty(capacity)
        self._norm = np.empty(capacity)
        self._score = np.empty(capacity)

    @property
    def ids(self) -> Positions:
        """(size,) position of each column in X."""
        return self._ids[: self.size]

    @property
    def score(self) -> Float64:
        """(size,) how near each column was to entering the model when it was last looked at."""
        return self._score[: self.size]

    def add(self, values: Float32, ids: Positions, scale: Float64, norm: Float64, score: Float64) -> None:
        """Add columns.

        Args:
            values: (T, n) columns of X.
            ids: (n,) their positions in X.
            scale: (n,) s_j.
            norm: (n,) upper bounds of ‖x̃_j‖.
            score: (n,) see :attr:`score`.
        """
        first, stop = self.size, self.size + len(ids)
        self._values[first:stop] = values.T
        self._ids[first:stop] = ids
        self._scale[first:stop], self._norm[first:stop], self._score[first:stop] = scale, norm, score
        self.size = stop

    def reserve(self, room: int) -> None:
        """Raise the capacity until ``room`` more columns fit."""
        if self.size + room > self.capacity:
            self.capacity = max(2 * self.capacity, self.size + room)
            for name in ("_values", "_ids", "_scale", "_norm", "_score"):
                held = getattr(self, name)
                larger = np.empty((self.capacity, *held.shape[1:]), held.dtype)
                larger[: self.size] = held[: self.size]
                setattr(self, name, larger)

    def copy_to(self, other: WorkingSet, rows: Positions) -> None:
        """Add the columns at places ``rows`` to another working set."""
        other.reserve(len(rows))
        other.add(self._values[rows].T, self._ids[rows], self._scale[rows], self._norm[rows], self._score[rows])

    def places(self, ids: Positions) -> Positions:
        """Places of columns by their position in X; −1 for those that it doesn't hold."""
        if not self.size:
            return np.full(len(ids), -1)
        order = np.argsort(self.ids, kind="stable")
        found = order[np.minimum(np.searchsorted(self.ids, ids, sorter=order), self.size - 1)]
        return np.where(self.ids[found] == ids, found, -1)

    def rescale(self, scale: Float64, norm: Float64) -> None:
        """Replace s_j and ‖x̃_j‖ of all columns."""
        self._scale[: self.size], self._norm[: self.size] = scale, norm

    def keep(self, keep: npt.NDArray[np.bool_]) -> None:
        """Drop the columns where ``keep`` (size,) is False; the others keep their order."""
        rows = np.flatnonzero(keep)
        for start in range(0, len(rows), SLAB):
            part = rows[start : start + SLAB]
            self._values[start : start + len(part)] = self._values[part]
        for array in (self._ids, self._scale, self._norm, self._score):
            array[: len(rows)] = array[rows]
        self.size = len(rows)

    def columns(self, rows: Positions) -> Float64:
        """The scaled columns at places ``rows`` of the working set, (len(rows), T) float64."""
        return self._values[rows] * self._scale[rows, None]

    def raw_columns(self, rows: Positions) -> Float32:
        """The columns of X at places ``rows`` of the working set, (len(rows), T), as they were added."""
        return self._values[rows]

    def correlations(self, vectors: Float64) -> tuple[Float64, Float64]:
        """x̃_jᵀv for all columns and several v, in float32.

        Args:
            vectors: (T, K).

        Returns:
            (size, K) correlations and (size, K) bounds of their errors.
        """
        values = np.empty((self.size, vectors.shape[1]))
        narrow = vectors.astype(np.float32)
        for start in range(0, self.size, 8 * SLAB):
            part = slice(start, min(start + 8 * SLAB, self.size))
            values[part] = self._values[part] @ narrow
        values *= self._scale[: self.size, None]
        # Here the whole column is summed in one go.
        share = (self.num_rows + 4) * FLOAT32_ROUNDING
        return values, share * self._norm[: self.size, None] * np.linalg.norm(vectors, axis=0)

    def exact_correlations(self, rows: Positions, vectors: Float64) -> Float64:
        """x̃_jᵀv in float64 for the columns at places ``rows``: (len(rows), K)."""
        out = np.empty((len(rows), vectors.shape[1]))
        for start in range(0, len(rows), SLAB):
            part = rows[start : start + SLAB]
            out[start : start + len(part)] = self.columns(part) @ vectors
        return out


NORM_FLOOR = 1e-9
"""Columns with less than this share of the largest norm keep that floor's scale: a unit norm would promote noise."""


class ColumnScales:
    """Norms and scales of a range of columns.

    Args:
        num_rows: T.
        num_columns: Columns of the range.
        normalize: ``none``: one power of two for all, so that nothing is rounded; ``column``: 1/‖x_j‖.

    Attributes:
        by_norm: Whether each column is scaled by its norm.
        norm: (n,) float32 ‖x_j‖, 0 of columns that weren't read yet.
        largest_norm: Of the columns read so far.
        unit: The power of two; 0 before a column that isn't zero was read.
    """

    def __init__(self, num_rows: int, num_columns: int, normalize: str) -> None:
        self.by_norm = normalize == "column"
        self.norm = np.zeros(num_columns, np.float32)
        self.largest_norm = 0.0
        self.unit = 0.0
        self._norm_error = norm_error(num_rows)

    def measure(self, start: int, norms: Float64) -> None:
        """Note ‖x_j‖ of the columns from ``start`` on."""
        self.norm[start : start + len(norms)] = norms
        largest = float(norms.max(initial=0.0))
        if self.unit == 0.0 and largest > 0:
            self.unit = 2.0 ** -math.floor(math.log2(largest))
        self.largest_norm = max(self.largest_norm, largest)

    def of(self, ids: Positions | slice) -> tuple[Float64, Float64]:
        """s_j and an upper bound of ‖x̃_j‖."""
        norm = self.norm[ids].astype(np.float64)
        if self.by_norm:
            floored = np.maximum(norm, NORM_FLOOR * self.largest_norm)
            scale = np.divide(1.0, floored, where=norm > 0, out=np.zeros_like(norm))
        else:
            scale = np.where(norm > 0, self.unit, 0.0)
        return scale, scale * norm * (1 + self._norm_error)

    def any_floored(self, start: int, stop: int) -> bool:
        """Whether the floor decides the scale of any of these columns."""
        norm = self.norm[start:stop]
        return bool(((norm > 0) & (norm < NORM_FLOOR * self.largest_norm)).any())


_COLUMN_BYTES = 26
"""For each column: norm, rank, whether it is in the working set; in the result γ and the KKT score; copies of these."""

_SMALLEST_SET = 128
_LARGEST_SET = 2**27
"""Bytes that are enough for the working set, unless both of the following ask for more."""

_LARGEST_SHARE = 10
"""One column in so many is enough."""

_COLUMNS_A_ROW = 256
"""So many columns for each that a Lasso can select are enough."""

_PROGRAM = 160 * 2**20
"""What Python with NumPy, SciPy and Zarr occupies. A constant: with a measured one, equal fits would differ in their
last bits from run to run."""

_WORKSPACE = 2**25
"""Active sets, their factors, tables of one block's scores."""


@dataclass(frozen=True)
class MemoryPlan:
    """What fits.

    Attributes:
        block_width: Columns of a block.
        ahead: Blocks that are worked on at the same time.
        working_set_columns: Columns of all working sets together.
    """

    block_width: int
    ahead: int
    working_set_columns: int


def plan_memory(
    limit: int,
    *,
    num_rows: int,
    num_columns: int,
    chunk_width: int,
    vectors: int,
    copies: float = 1.0,
    processes: int = 1,
) -> MemoryPlan:
    """Divide the memory of the process.

    Args:
        limit: Bytes for the whole process; PyTorch, if something else loaded it, comes on top.
        num_rows: T.
        num_columns: P.
        chunk_width: A block of this width, or a multiple of it, decodes nothing twice.
        vectors: Residuals that each block is correlated with.
        copies: How many times its own size forming a block takes.
        processes: How many fill the working set, each a share of its own.

    Raises:
        UsageError: Not even narrow blocks and a small working set fit.
    """
    column = 4 * num_rows
    fixed = _PROGRAM + _COLUMN_BYTES * num_columns + _WORKSPACE
    smallest = min(num_columns, processes * (_SMALLEST_SET + 2 * num_rows)) * column
    width = min(chunk_width, num_columns)
    for ahead, shrink in ((2, 1), (2, 2), (1, 1), (1, 2), (1, 4), (1, 8), (0, 8), (0, 16), (0, 32)):
        narrow = max(1, width // shrink)
        # A block, its products with their scores, and the columns gathered from it.
        blocks = int((ahead + 1) * narrow * (column * copies + 16 * vectors)) + narrow * 8 * vectors
        rest = limit - fixed - blocks
        if rest >= max(smallest, blocks // 2 if shrink < 8 else 0):
            # As the working set grows, passes become fewer and every look at it dearer.
            wide = min(num_columns // _LARGEST_SHARE, _COLUMNS_A_ROW * num_rows)
            useful = max(smallest // column, wide, _LARGEST_SET // column)
            columns = min(num_columns, useful, int(0.8 * rest) // column)
            return MemoryPlan(narrow, ahead, max(columns, smallest // column))
    needed = fixed + smallest + int(max(1, width // 32) * (column * copies + 24 * vectors))
    raise UsageError(
        "`memory`", expected=f"at least {format_bytes(1.1 * needed)} for {num_rows:,} × {num_columns:,}",
        found=format_bytes(limit), remedy="raise it",
    )  # fmt: skip


def divide_working_set(total: int, sizes: list[int]) -> list[int]:
    """Divide the columns of a working set among regions: small ones take what they have, the others alike."""
    shares = [0] * len(sizes)
    rest, left = total, len(sizes)
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        shares[place] = max(1, min(sizes[place], rest // left))
        rest, left = rest - shares[place], left - 1
    return shares
