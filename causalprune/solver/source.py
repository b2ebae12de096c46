"""The design matrix X and the target y of a fit, read in blocks of columns or rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from causalprune.errors import DataError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class ReadableColumns(Protocol):
    """X (T, P) and y (T,), X too large for memory.

    Attributes:
        num_rows: T.
        num_columns: P.
        block_width: Columns in a block that is cheap to read.
        target: y, (T,) float64.
    """

    num_rows: int
    num_columns: int
    block_width: int
    target: Float64

    def read(self, start: int, stop: int) -> Float32:
        """Columns ``start`` to ``stop``: (T, stop − start) float32."""
        ...

    def blocks(self, width: int | None = None, order: Sequence[int] | None = None) -> Iterator[tuple[int, Float32]]:
        """All columns in blocks (first column, (T, w) float32), in the given order of block numbers."""
        ...

    def row_blocks(self, height: int) -> Iterator[tuple[int, Float32]]:
        """All rows in blocks (first row, (h, P) float32)."""
        ...


class ColumnSource(ReadableColumns, Protocol):
    """Columns that can be worked on in the threads that read them.

    Attributes:
        copies: How many times its own size forming a block takes.
    """

    copies: float

    @property
    def bytes_read(self) -> int:
        """Bytes read from the store so far."""
        ...

    @property
    def seconds(self) -> tuple[float, float]:
        """Thread time of reading and of decoding so far."""
        ...

    def map_blocks(
        self,
        function: Callable[[int, Float32, Argument], Result],
        items: Iterable[tuple[int, Argument]],
        width: int,
        ahead: int,
    ) -> Iterator[Result]:
        """Apply a function to blocks of columns, in the threads that read them, and yield the results in order.

        Args:
            function: Called with the first column, the (T, ≤ width) block and the item's argument.
            items: (block number, argument); an item is taken when its block's turn to be read comes, ``ahead`` blocks
                before its result is yielded.
            width: Columns of a block.
            ahead: Blocks that are worked on at the same time, each in a thread; 0 works in the calling thread.
        """
        ...


class ArraySource:
    """A :class:`ColumnSource` over arrays in memory.

    Args:
        X: (T, P), kept as float32.
        y: (T,).
        block_width: Columns in a block.

    Raises:
        DataError: Lengths that differ.
    """

    def __init__(self, X: npt.ArrayLike, y: npt.ArrayLike, block_width: int = 4096) -> None:
        self._X = np.asarray(X, dtype=np.float32)
        self.target = np.asarray(y, dtype=np.float64)
        if self._X.ndim != 2 or self.target.shape != (len(self._X),):
            found = f"shapes {self._X.shape} and {self.target.shape}"
            raise DataError("X and y", expected="(T, P) and (T,)", found=found)
        self.num_rows, self.num_columns = self._X.shape
        self.block_width = block_width
        self.copies = 1.0

    @property
    def bytes_read(self) -> int:
        """0: nothing is read from a store."""
        return 0

    @property
    def seconds(self) -> tuple[float, float]:
        """Nothing is read, nothing decoded."""
        return 0.0, 0.0

    def read(self, start: int, stop: int) -> Float32:
        """Columns ``start`` to ``stop``."""
        return self._X[:, start:stop]

    def blocks(self, width: int | None = None, order: Sequence[int] | None = None) -> Iterator[tuple[int, Float32]]:
        """All columns in blocks."""
        width = width or self.block_width
        for number in range(-(-self.num_columns // width)) if order is None else order:
            yield number * width, self.read(number * width, min((number + 1) * width, self.num_columns))

    def map_blocks(
        self,
        function: Callable[[int, Float32, Argument], Result],
        items: Iterable[tuple[int, Argument]],
        width: int,
        ahead: int,
    ) -> Iterator[Result]:
        """Apply a function to blocks of columns, in the calling thread."""
        del ahead
        for number, argument in items:
            first = number * width
            yield function(first, self.read(first, min(first + width, self.num_columns)), argument)

    def row_blocks(self, height: int) -> Iterator[tuple[int, Float32]]:
        """All rows in blocks."""
        for first in range(0, self.num_rows, height):
            yield first, self._X[first : first + height]


class ColumnRange:
    """Columns ``start`` to ``stop`` of another source, as a source of their own."""

    def __init__(self, source: ReadableColumns, start: int, stop: int) -> None:
        self._source, self._start = source, start
        self.num_rows, self.num_columns = source.num_rows, stop - start
        self.block_width, self.target = source.block_width, source.target

    def read(self, start: int, stop: int) -> Float32:
        """Columns ``start`` to ``stop`` of the range."""
        return self._source.read(self._start + start, self._start + stop)

    def blocks(self, width: int | None = None, order: Sequence[int] | None = None) -> Iterator[tuple[int, Float32]]:
        """All columns of the range in blocks."""
        width = width or self.block_width
        for number in range(-(-self.num_columns // width)) if order is None else order:
            yield number * width, self.read(number * width, min((number + 1) * width, self.num_columns))

    def row_blocks(self, height: int) -> Iterator[tuple[int, Float32]]:
        """All rows of the range in blocks."""
        for first, block in self._source.row_blocks(height):
            yield first, block[:, self._start : self._start + self.num_columns]
