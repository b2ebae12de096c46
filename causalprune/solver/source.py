"""The design matrix X and the target y of the causal model, read in blocks: what solvers ask for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class ColumnSource(ABC):
    """X (T, P) and y (T,), X too large for memory.

    Attributes:
        num_rows: T.
        num_columns: P.
        block_width: Columns in a block that is cheap to read.
        target: y, (T,) float64.
        copies: How many times its own size forming a block of columns takes, at most.
        ahead: Blocks that :meth:`blocks` forms ahead, each in a thread.
    """

    num_rows: int
    num_columns: int
    block_width: int
    target: Float64
    copies: float = 1.0
    ahead: int = 0

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
            height: Rows of a block.

        Yields:
            (first row, (≤ height, P) float32).
        """

    def blocks(self, width: int | None = None) -> Iterator[tuple[int, Float32]]:
        """Iterate over blocks of columns, in order.

        Args:
            width: Columns of a block; ``block_width`` when left out.

        Yields:
            (first column, (T, ≤ width) float32).
        """
        width = width or self.block_width
        items = ((number, None) for number in range(-(-self.num_columns // width)))
        return self.map_blocks(_with_its_place, items, width, self.ahead)

    def map_blocks(
        self,
        function: Callable[[int, Float32, Argument], Result],
        items: Iterable[tuple[int, Argument]],
        width: int,
        ahead: int,
    ) -> Iterator[Result]:
        """Apply a function to blocks of columns and yield the results in order; here in the calling thread.

        Args:
            function: Called with the first column, the (T, ≤ width) block and the item's argument; in the threads that
                read the blocks, where a source has some.
            items: (block number, argument), block b being columns b·width and on. An item is taken when its block's
                turn to be read comes, ``ahead`` blocks before its result is yielded.
            width: Columns of a block.
            ahead: Blocks that are worked on at the same time, each in a thread; 0 works in the calling thread.
        """
        del ahead
        for number, argument in items:
            first = number * width
            yield function(first, self.read(first, min(first + width, self.num_columns)), argument)


def _with_its_place(first: int, block: Float32, argument: None) -> tuple[int, Float32]:
    del argument
    return first, block


class ArraySource(ColumnSource):
    """Arrays in memory.

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
