"""The working set: the columns in memory, which may become active; their scales; and how the memory is divided."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import UsageError
from causalprune.base.units import format_bytes
from causalprune.solver.certificate import signed
from causalprune.solver.products import FLOAT32_ROUNDING, USUAL_NORMS
from causalprune.solver.source import Float32, Float64, Size

Positions = npt.NDArray[np.int64]

SLAB = 1024
"""Columns that are converted to float64, or moved, at a time."""

KKT_MARGIN = 1e-10
"""A violation of the KKT conditions smaller than this share of the bound Tλ₁ is rounding."""


class WorkingSet:
    """Columns x_j of X in float32, each with the scale s_j of x̃_j = s_j·x_j.

    Columns near the ends of float32's range are held times a power of two, so that products with them stay within it.

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
        self._lift = np.empty(capacity, np.int64)
        self._scale = np.empty(capacity)
        self._norm = np.empty(capacity)
        self._score = np.empty(capacity)

    @property
    def ids(self) -> Positions:
        """(size,) position of each column in X."""
        return self._ids[: self.size]

    @property
    def score(self) -> Float64:
        """(size,) how near each column was to becoming active when it was last compared with a residual."""
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
        lift = self._lift[first:stop] = _lifts(values, scale, norm)
        for row in np.flatnonzero(lift):
            self._values[first + row] = np.ldexp(self._values[first + row], lift[row])
        self._norm[first:stop], self._score[first:stop] = norm, score
        self.size = stop
        self._scale[first:stop] = np.ldexp(scale, -lift)

    def reserve(self, room: int) -> None:
        """Raise the capacity until ``room`` more columns fit."""
        if self.size + room > self.capacity:
            self.capacity = max(2 * self.capacity, self.size + room)
            for name in _ARRAYS:
                held = getattr(self, name)
                larger = np.empty((self.capacity, *held.shape[1:]), held.dtype)
                larger[: self.size] = held[: self.size]
                setattr(self, name, larger)

    def copy_to(self, other: WorkingSet, rows: Positions) -> None:
        """Add the columns at places ``rows`` to another working set."""
        other.reserve(len(rows))
        part = slice(other.size, other.size + len(rows))
        for name in _ARRAYS:
            getattr(other, name)[part] = getattr(self, name)[rows]
        other.size = part.stop

    def places(self, ids: Positions) -> Positions:
        """Places of columns by their position in X; −1 for those that it doesn't hold."""
        if not self.size:
            return np.full(len(ids), -1)
        order = np.argsort(self.ids, kind="stable")
        found = order[np.minimum(np.searchsorted(self.ids, ids, sorter=order), self.size - 1)]
        return np.where(self.ids[found] == ids, found, -1)

    def rescale(self, scale: Float64, norm: Float64) -> None:
        """Replace s_j and ‖x̃_j‖ of all columns."""
        self._scale[: self.size], self._norm[: self.size] = np.ldexp(scale, -self._lift[: self.size]), norm

    def keep(self, keep: npt.NDArray[np.bool_]) -> None:
        """Drop the columns where ``keep`` (size,) is False; the others keep their order."""
        rows = np.flatnonzero(keep)
        for start in range(0, len(rows), SLAB):
            part = rows[start : start + SLAB]
            self._values[start : start + len(part)] = self._values[part]
        for array in (self._ids, self._lift, self._scale, self._norm, self._score):
            array[: len(rows)] = array[rows]
        self.size = len(rows)

    def columns(self, rows: Positions) -> Float64:
        """The scaled columns at places ``rows`` of the working set, (len(rows), T) float64."""
        return self._values[rows] * self._scale[rows, None]

    def raw_columns(self, rows: Positions) -> Float32:
        """The columns of X at places ``rows`` of the working set, (len(rows), T), as they were added."""
        values, lift = self._values[rows], self._lift[rows]
        for row in np.flatnonzero(lift):
            values[row] = np.ldexp(values[row], -lift[row])
        return values

    def correlations(self, vectors: Float64) -> tuple[Float64, Float64]:
        """x̃_jᵀv for all columns and several v, in float32.

        Args:
            vectors: (T, K).

        Returns:
            (size, K) correlations and (size, K) bounds of their errors.
        """
        values = np.empty((self.size, vectors.shape[1]))
        norms = np.linalg.norm(vectors, axis=0)
        # Residuals may be so small that their products would underflow.
        narrow = np.divide(vectors, norms, where=norms > 0, out=np.zeros_like(vectors)).astype(np.float32)
        for start in range(0, self.size, 8 * SLAB):
            part = slice(start, min(start + 8 * SLAB, self.size))
            # A kernel may look at memory beyond the columns, and set a flag for what it finds there.
            with np.errstate(all="ignore"):
                values[part] = self._values[part] @ narrow
        values *= self._scale[: self.size, None] * norms
        # Unlike those of ``products``, these sums run over the whole column at once.
        share = (self.num_rows + 4) * FLOAT32_ROUNDING
        return values, share * self._norm[: self.size, None] * norms

    def shares(self, vectors: Float64, sign: int) -> Iterator[tuple[int, Float64, Float64]]:
        """x̃_jᵀv of all columns and several v, in float32, slab by slab.

        Args:
            vectors: (T, K), each divided by its bound Tλ₁.
            sign: Which shares of the bound to yield, see :func:`causalprune.solver.certificate.signed`.

        Yields:
            First column of the slab, (K, w) shares, and (w,) bounds of their errors as shares of ‖v‖.
        """
        norms = np.linalg.norm(vectors, axis=0)
        # Residuals may be so small that their products would underflow.
        narrow = np.divide(vectors, norms, where=norms > 0, out=np.zeros_like(vectors)).T.astype(np.float32)
        # The sums run over the whole column at once.
        rounding = (self.num_rows + 4) * FLOAT32_ROUNDING
        for start in range(0, self.size, SLAB):
            part = slice(start, min(start + SLAB, self.size))
            with np.errstate(all="ignore"):
                products = narrow @ self._values[part].T
            shares = signed(products.astype(np.float64), sign)
            shares *= self._scale[part]
            shares *= norms[:, None]
            yield start, shares, rounding * self._norm[part]

    def exact_correlations(self, rows: Positions, vectors: Float64) -> Float64:
        """x̃_jᵀv in float64 for the columns at places ``rows``: (len(rows), K)."""
        out = np.empty((len(rows), vectors.shape[1]))
        for start in range(0, len(rows), SLAB):
            part = rows[start : start + SLAB]
            out[start : start + len(part)] = self.columns(part) @ vectors
        return out

    def exact_correlation(self, vector: Float64) -> Float64:
        """x̃_jᵀv of one vector in float64 for all columns: (size,)."""
        return self.exact_correlations(np.arange(self.size), vector[:, None])[:, 0]

    def refine(self, correlations: Float64, errors: Float64, vector: Float64, bound: float) -> None:
        """Recompute in float64 the correlations with ``vector`` that, given their errors, may reach the bound."""
        doubtful = np.flatnonzero(np.abs(correlations) + errors > bound * (1 - KKT_MARGIN))
        if len(doubtful):
            correlations[doubtful] = self.exact_correlations(doubtful, vector[:, None])[:, 0]


_ARRAYS = ("_values", "_ids", "_lift", "_scale", "_norm", "_score")
"""What a working set holds of each column."""

_LIFTED = 60
"""Columns whose largest entry isn't within 2^±60 are held times a power of two."""


def _lifts(values: Float32, scale: Float64, norm: Float64) -> npt.NDArray[np.int64]:
    """(n,) the exponent of the power of two that each column x_j of (T, n) is held times; 0 for nearly all.

    Args:
        values: The columns.
        scale: (n,) s_j.
        norm: (n,) upper bounds of s_j‖x_j‖, which are within 1 % of it.
    """
    lifts = np.zeros(len(scale), np.int64)
    # The largest entry is between ‖x_j‖/√T and ‖x_j‖. For nearly all that is enough to know.
    with np.errstate(divide="ignore", invalid="ignore"):
        largest = norm / scale
    inside = (largest < 2.0 ** (_LIFTED - 1)) & (largest > 2.0 ** (1 - _LIFTED) * math.sqrt(len(values)))
    doubtful = np.flatnonzero(~inside)
    _, exponent = np.frexp(np.abs(values[:, doubtful]).max(axis=0, initial=0.0))
    lifts[doubtful] = np.where(np.abs(exponent) > _LIFTED, -exponent, 0)
    return lifts


class ColumnScales:
    """Norms and scales of a range of columns.

    Args:
        num_rows: T.
        num_columns: Columns of the range.
        normalize: ``none``: the same power of two for all, so that nothing is rounded; ``column``: 1/‖x_j‖.

    Attributes:
        by_norm: Whether each column is scaled by its norm.
        norm: (n,) ‖x_j‖; 0 for columns that haven't been read.
        largest_norm: The largest ‖x_j‖ read so far.
        unit: The power of two; 0 until a nonzero column has been read.
    """

    def __init__(self, num_rows: int, num_columns: int, normalize: str) -> None:
        self.by_norm = normalize == "column"
        self.norm = np.zeros(num_columns)
        self.largest_norm = 0.0
        self.unit = 0.0
        self._upper = 1 + (num_rows + 4) * 2.0**-52

    def measure(self, start: int, norms: Float64) -> None:
        """Set ‖x_j‖ of the columns from ``start`` on."""
        self.norm[start : start + len(norms)] = norms
        largest = float(norms.max(initial=0.0))
        if self.unit == 0.0 and largest > 0:
            # Columns to come may be far larger than a block of tiny ones.
            self.unit = 2.0 ** -math.floor(math.log2(min(max(largest, USUAL_NORMS[0]), USUAL_NORMS[1])))
        self.largest_norm = max(self.largest_norm, largest)

    def of(self, ids: Positions | slice) -> tuple[Float64, Float64]:
        """s_j and an upper bound on ‖x̃_j‖."""
        norm = self.norm[ids]
        if self.by_norm:
            scale = np.divide(1.0, norm, where=norm > 0, out=np.zeros_like(norm))
        else:
            scale = np.where(norm > 0, self.unit, 0.0)
        return scale, scale * norm * self._upper

    @property
    def largest_scaled(self) -> float:
        """The largest ‖x̃_j‖."""
        return 1.0 if self.by_norm else self.unit * self.largest_norm


_COLUMN_BYTES = 30
"""Per column: norm, KKT score, membership in the working set; γ and the KKT score in the result; copies of these."""

_SMALLEST_SET = 128
_LARGEST_SET = 2**27
"""Bytes that suffice for the working set, unless both of the following ask for more."""

_LARGEST_SHARE = 10
"""One in this many columns suffices."""

_COLUMNS_A_ROW = 256
"""This many columns per row suffice; a Lasso selects at most one per row."""

_PROGRAM = 160 * 2**20
"""What Python with NumPy, SciPy and Zarr occupies. A constant, since with a measured value the last bits of a fit would
differ from run to run."""

_WORKSPACE = 2**25
"""Active sets, their Cholesky factors, and the scores of a block's columns."""

_TIGHT_PROGRAM = 84 * 2**20
"""What of :data:`_PROGRAM` is really occupied; ``benchmarks/growth.py memory`` compares the plan with reality."""

_CHUNK_ROWS = 3 * 64
"""Rows of a chunk times the chunks that are held, encoded and decoded, while a block is read."""

_TIGHT_SUPPORT = 256
"""Nonzero coefficients whose active set and Cholesky factor are counted."""

_TIGHT_SET = 2048
"""Columns in the working set with which a fit is still tried; a Lasso that selects as many needs more."""


@dataclass(frozen=True)
class MemoryPlan:
    """How the memory of the process is divided.

    Attributes:
        block_width: Columns per block.
        ahead: Blocks processed at the same time.
        working_set_columns: Columns in all working sets together.
    """

    block_width: int
    ahead: int
    working_set_columns: int


def plan_memory(limit: int, source: Size, *, vectors: int, processes: int) -> MemoryPlan:
    """Divide the memory of the process among blocks and working sets.

    Args:
        limit: Bytes for the whole process; PyTorch, if something else loaded it, comes on top.
        source: X, or its size.
        vectors: Residuals that each block is correlated with.
        processes: How many processes fill the working set, each with its own share.

    Raises:
        UsageError: Not even narrow blocks and a small working set fit.
    """
    num_rows, num_columns, copies = source.num_rows, source.num_columns, source.copies
    column = 4 * num_rows
    fixed = _PROGRAM + _COLUMN_BYTES * num_columns + _WORKSPACE
    smallest = min(num_columns, processes * (_SMALLEST_SET + 2 * num_rows)) * column
    width = min(source.block_width, num_columns)
    # The estimates of this loop are generous where there are many rows. They stay, because another division of the
    # memory would change the last bits of fits.
    for ahead, shrink in ((2, 1), (2, 2), (1, 1), (1, 2), (1, 4), (1, 8), (0, 8), (0, 16), (0, 32)):
        narrow = max(1, width // shrink)
        # Each block, its products with their scores, and the columns gathered from it.
        blocks = int((ahead + 1) * narrow * (column * copies + 16 * vectors)) + narrow * 8 * vectors
        rest = limit - fixed - blocks
        if rest >= max(smallest, blocks // 2 if shrink < 8 else 0):
            # A larger working set takes fewer passes, but every product with it costs more.
            wide = min(num_columns // _LARGEST_SHARE, _COLUMNS_A_ROW * num_rows)
            useful = max(smallest // column, wide, _LARGEST_SET // column)
            columns = min(num_columns, useful, int(0.8 * rest) // column)
            return MemoryPlan(narrow, ahead, max(columns, smallest // column))
    return _tight_plan(limit, source, vectors=vectors, largest=smallest // column, processes=processes)


def _tight_plan(limit: int, source: Size, *, vectors: int, largest: int, processes: int) -> MemoryPlan:
    """As little memory as is really needed: narrow blocks, one at a time, and a working set that may be too small.

    A support that outgrows it ends in a fit that isn't certified, whose error asks for more memory.

    Args:
        limit: As for :func:`plan_memory`.
        source: X.
        vectors: Residuals that each block is correlated with.
        largest: Columns in the working set that suffice for any support.
        processes: How many processes fill the working set.
    """
    column = 4 * source.num_rows
    width = min(source.block_width, source.num_columns)
    columns = min(largest, processes * _TIGHT_SET)
    fixed = _TIGHT_PROGRAM + _COLUMN_BYTES * source.num_columns + 4 * _CHUNK_ROWS * width
    fixed += 4 * column * min(source.num_rows, _TIGHT_SUPPORT)
    for shrink in (8, 16, 32):
        narrow = max(1, width // shrink)
        # A block and what is gathered from it; the core of the working set, copies of it while it is made, and a slab
        # of columns in float64, whose correlations are computed exactly.
        blocks = int(narrow * (2 * column * source.copies + 24 * vectors))
        needed = fixed + blocks + column * (columns + 7 * min(columns, SLAB))
        if limit >= needed:
            return MemoryPlan(narrow, 0, min(largest, columns + (limit - needed) // column))
    raise UsageError(
        "`memory`", expected=f"at least {format_bytes(1.02 * needed)} for {source.num_rows:,} × "
        f"{source.num_columns:,}", found=format_bytes(limit), remedy="raise it",
    )  # fmt: skip


def divide_working_set(total: int, sizes: list[int]) -> list[int]:
    """Divide the columns of a working set among regions of these sizes: evenly, none more than it has."""
    shares = [0] * len(sizes)
    rest, left = total, len(sizes)
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        shares[place] = max(1, min(sizes[place], rest // left))
        rest, left = rest - shares[place], left - 1
    return shares
