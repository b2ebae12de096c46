"""The input of a solver: the design matrix X and the target y, X read in blocks of columns or rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Deltas:
    """Δθ of which the columns of X are formed: squares, or the three columns of each lagged pair.

    Attributes:
        num_rows: Rows of Δθ, T + ``lags``.
        num_columns: Columns of Δθ.
        lags: 0, or 1 for the three columns of momentum.
        mantissa_bits: Explicit mantissa bits that may be other than 0, of float32's 23.
        blocks: Iterator of (first column, (rows, ≤ width) float32) over blocks of columns, given their width.
    """

    num_rows: int
    num_columns: int
    lags: int
    mantissa_bits: int
    blocks: Callable[[int], Iterator[tuple[int, Float32]]]


class Size(Protocol):
    """How large X is, and how it is read; a :class:`ColumnSource` has it, and what is still to be recorded, too."""

    @property
    def num_rows(self) -> int:
        """T."""

    @property
    def num_columns(self) -> int:
        """P."""

    @property
    def block_width(self) -> int:
        """Columns in a block that is cheap to read."""

    @property
    def copies(self) -> float:
        """Largest memory for forming a block of columns, as a multiple of the block's size."""


class ColumnSource(ABC):
    """X (T, P) and y (T,), with X possibly larger than memory.

    Attributes:
        num_rows: T.
        num_columns: P.
        block_width: Columns in a block that is cheap to read.
        target: y, (T,) float64.
        copies: Largest memory for forming a block of columns, as a multiple of the block's size.
        ahead: Blocks that :meth:`blocks` forms ahead, each in its own thread.
    """

    num_rows: int
    num_columns: int
    block_width: int
    target: Float64
    copies: float = 1.0
    ahead: int = 0

    @property
    def deltas(self) -> Deltas | None:
        """What the columns are formed of, if each is a product of two deltas."""
        return None

    @property
    def bytes_read(self) -> int:
        """Bytes read from a store so far."""
        return 0

    @property
    def seconds(self) -> tuple[float, float]:
        """Thread time of reading and of decoding so far."""
        return 0.0, 0.0

    @abstractmethod
    def read(self, start: int, stop: int) -> Float32:
        """Columns ``start`` to ``stop`` of X, all rows: (T, stop − start) float32."""

    @abstractmethod
    def row_blocks(self, height: int) -> Iterator[tuple[int, Float32]]:
        """Iterate over all rows in blocks.

        Args:
            height: Rows per block.

        Yields:
            (first row, (≤ height, P) float32).
        """

    def blocks(self, width: int | None = None) -> Iterator[tuple[int, Float32]]:
        """Iterate over blocks of columns, in order.

        Args:
            width: Columns per block; by default ``block_width``.

        Yields:
            (first column, (T, ≤ width) float32).
        """
        width = width or self.block_width
        items = ((number, None) for number in range(-(-self.num_columns // width)))
        return self.map_blocks(lambda first, block, _: (first, block), items, width, self.ahead)

    def map_blocks(
        self,
        function: Callable[[int, Float32, Argument], Result],
        items: Iterable[tuple[int, Argument]],
        width: int,
        ahead: int,
    ) -> Iterator[Result]:
        """Apply a function to blocks of columns and yield the results in order.

        By default everything runs in the calling thread; a source may read blocks, and call the function, in threads.

        Args:
            function: Called with the first column, the (T, ≤ width) block and the item's argument.
            items: (block number, argument); block b starts at column b·width. An item is taken when reading of its
                block begins, ``ahead`` blocks before its result is yielded.
            width: Columns per block.
            ahead: Blocks processed at the same time, each in its own thread; 0: in the calling thread.
        """
        del ahead
        for number, argument in items:
            first = number * width
            yield function(first, self.read(first, min(first + width, self.num_columns)), argument)


class ArraySource(ColumnSource):
    """Arrays in memory.

    Args:
        X: (T, P), kept as float32.
        y: (T,).
        block_width: Columns per block.

    Raises:
        DataError: Shapes that don't match.
    """

    def __init__(self, X: npt.ArrayLike, y: npt.ArrayLike, block_width: int = 4096) -> None:
        self._X = np.asarray(X, dtype=np.float32)
        self.target = np.asarray(y, dtype=np.float64)
        if self._X.ndim != 2 or self.target.shape != (len(self._X),):
            found = f"shapes {self._X.shape} and {self.target.shape}"
            raise DataError("X and y", expected="(T, P) and (T,)", found=found)
        self.num_rows, self.num_columns = self._X.shape
        self.block_width = block_width

    def read(self, start: int, stop: int) -> Float32:
        """Columns ``start`` to ``stop``."""
        return self._X[:, start:stop]

    def row_blocks(self, height: int) -> Iterator[tuple[int, Float32]]:
        """All rows in blocks."""
        for first in range(0, self.num_rows, height):
            yield first, self._X[first : first + height]


class ColumnRange(ColumnSource):
    """Columns ``start`` to ``stop`` of another source."""

    def __init__(self, source: ColumnSource, start: int, stop: int) -> None:
        self._source, self._start = source, start
        self.num_rows, self.num_columns = source.num_rows, stop - start
        self.block_width, self.target, self.copies = source.block_width, source.target, source.copies

    def read(self, start: int, stop: int) -> Float32:
        """Columns ``start`` to ``stop`` of the range."""
        return self._source.read(self._start + start, self._start + stop)

    def row_blocks(self, height: int) -> Iterator[tuple[int, Float32]]:
        """All rows of the range in blocks."""
        for first, block in self._source.row_blocks(height):
            yield first, block[:, self._start : self._start + self.num_columns]
