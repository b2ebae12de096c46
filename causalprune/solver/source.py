"""Sources of columns that aren't stores: arrays in memory, and a part of another source."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from causalprune.columns import ColumnSource, Float32
from causalprune.errors import DataError


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
