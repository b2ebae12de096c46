"""The columns X of the causal model, formed from the recorded signed deltas while these are read.

Plain SGD explains ΔL_t by (Δθ_t)², one column per parameter. SGD with momentum needs three columns per parameter, side
by side: (Δθ_t)², (Δθ_{t−1})² and Δθ_t·Δθ_{t−1} are columns 3k, 3k + 1 and 3k + 2 of parameter k, for t = 1 … T − 1
(Shah et al., arXiv 2412.03035). For a group of parameters, such as a filter, each column is the sum over its members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import numpy as np

from causalprune.solver.source import Argument, ColumnSource, Deltas, Float32, Float64, Result
from causalprune.solver.working_set import Positions
from causalprune.trajectory.reader import RecordingReader, recut
from causalprune.trajectory.threads import BufferPool, prefetched


@dataclass(frozen=True)
class FeatureSize:
    """How large X is, and how it is read; see :class:`causalprune.solver.source.Size`."""

    num_rows: int
    num_columns: int
    block_width: int
    copies: float

    @classmethod
    def of(cls, num_rows: int, num_columns: int, block_width: int, *, lags: Literal[0, 1], groups: int | None) -> Self:
        """The size of X for a recording.

        Args:
            num_rows: Rows of the recording.
            num_columns: Its columns.
            block_width: The width of its blocks.
            lags: See :class:`FeatureSource`.
            groups: How many groups there are; None without.
        """
        each, count, width = 3 if lags else 1, num_columns, block_width
        if groups is not None:
            count, width = groups, max(1, groups * width // num_columns)
        # With lags memory holds deltas and features; with groups the members' features and the sums in float64.
        copies = 1.0 if lags == 0 else 4 / 3
        if groups is not None:
            copies = 3.0 + copies * num_columns / groups
        return cls(max(0, num_rows - lags), each * count, each * width, copies)


class FeatureSource(ColumnSource):
    """X and y of a recording; see :class:`ColumnSource`.

    Memory: ``prefetch + 1`` blocks, with lags as many blocks of deltas again, and the blocks that the caller keeps.

    Args:
        reader: The recording.
        lags: 0 for one column per parameter or group, 1 for the three of momentum.
        groups: (P_active,) group number of each column of the recording, from 0; None: every parameter by itself.
            Reading is cheapest if the members of each group are adjacent.
        lr_scale: Divide Δθ_t by its η_t, so that columns are Δθ²/η².
        prefetch: Blocks formed ahead, each in its own thread; 0: in the calling thread.

    Attributes:
        num_rows: T, less the lags.
        num_columns: Columns of X.
        block_width: Blocks of this width decode nothing twice.
        target: (num_rows,) float64, ΔL; of held steps its second-order part.
    """

    def __init__(
        self,
        reader: RecordingReader,
        *,
        lags: Literal[0, 1] = 0,
        groups: Positions | None = None,
        lr_scale: bool = False,
        prefetch: int = 2,
    ) -> None:
        self._reader = reader
        self._lags = lags
        self._each = 3 if lags else 1
        self.ahead = prefetch
        self._groups = None if groups is None else _Groups(groups, reader.num_columns)
        self._lr = reader.learning_rates if lr_scale else None
        self.target = reader.target[lags:]
        count = None if self._groups is None else self._groups.count
        size = FeatureSize.of(reader.num_rows, reader.num_columns, reader.block_width, lags=lags, groups=count)
        self.num_rows, self.num_columns = size.num_rows, size.num_columns
        self.block_width, self.copies = size.block_width, size.copies

    @property
    def deltas(self) -> Deltas | None:
        """Δθ; None where columns are sums over groups, or divided by learning rates."""
        if self._groups is not None or self._lr is not None:
            return None
        reader = self._reader
        bits = reader.schema.codec.mantissa_bits
        return Deltas(
            reader.num_rows, reader.num_columns, self._lags, bits, partial(reader.column_blocks, prefetch=self.ahead)
        )

    @property
    def bytes_read(self) -> int:
        """Stored bytes read so far."""
        return self._reader.bytes_read

    @property
    def seconds(self) -> tuple[float, float]:
        """Thread time of reading and of decoding so far."""
        return self._reader.seconds

    def read(self, start: int, stop: int) -> Float32:
        """Columns ``start`` to ``stop`` of X, all rows: (num_rows, stop − start) float32, C-contiguous.

        Raises:
            CorruptError: A shard is missing or damaged.
            DataError: A delta is NaN or infinite.
            MismatchError: The rows were recorded anew since the recording was opened.
        """
        if not 0 <= start <= stop <= self.num_columns:
            raise IndexError(f"columns {start} to {stop} of {self.num_columns}")
        return self._read(start, stop, BufferPool(0))

    def _read(self, start: int, stop: int, pool: BufferPool) -> Float32:
        first, last = start // self._each, -(-stop // self._each)
        whole = self._groups_of(first, last, pool) if self._groups else self._parameters(first, last, pool)
        part = whole[:, start - first * self._each : stop - first * self._each]
        return np.ascontiguousarray(part)

    def _parameters(self, first: int, last: int, pool: BufferPool) -> Float32:
        """Features of the recording's columns ``first`` to ``last``."""
        deltas = pool.take(self._reader.num_rows, last - first)
        if self._lags == 0 and self._lr is None:
            return self._reader.read_columns(first, last, deltas, kernel=_square)
        self._reader.read_columns(first, last, deltas)
        lr = None if self._lr is None else self._lr.block(slice(None), slice(first, last)).astype(np.float32)
        return self._features(deltas, lr, pool)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def _features(self, deltas: Float32, lr: Float32 | None, pool: BufferPool) -> Float32:
        """Features of consecutive rows of deltas; overwrites the deltas."""
        if lr is not None:
            np.divide(deltas, lr, out=deltas)
        if self._lags == 0:
            return np.multiply(deltas, deltas, out=deltas)
        rows, columns = max(0, len(deltas) - 1), deltas.shape[1]
        features = pool.take(rows, columns, 3)
        now, before = deltas[1:], deltas[:-1]
        np.multiply(now, before, out=features[:, :, 2])
        np.multiply(now, now, out=features[:, :, 0])
        np.multiply(before, before, out=features[:, :, 1])
        return features.reshape(rows, 3 * columns)

    def _groups_of(self, first: int, last: int, pool: BufferPool) -> Float32:
        """Sums over groups ``first`` to ``last``, streamed over the range of columns that contains their members."""
        assert self._groups is not None
        sums = np.zeros((self.num_rows, last - first, self._each))
        start, stop = self._groups.span(first, last)
        for begin in range(start, stop, self._reader.block_width):
            end = min(begin + self._reader.block_width, stop)
            features = self._parameters(begin, end, pool).reshape(self.num_rows, end - begin, self._each)
            self._groups.add(features, begin, first, sums)
        return _narrow(sums)

    def map_blocks(
        self,
        function: Callable[[int, Float32, Argument], Result],
        items: Iterable[tuple[int, Argument]],
        width: int,
        ahead: int,
    ) -> Iterator[Result]:
        """Apply a function to blocks of columns, in the threads that form them; see :class:`ColumnSource`."""
        pool = BufferPool(2 * (ahead + 1))

        def work(number: int, argument: Argument) -> Result:
            first = number * width
            block = self._read(first, min(first + width, self.num_columns), pool)
            return function(first, block, argument)

        return prefetched((partial(work, number, argument) for number, argument in items), ahead)

    def row_blocks(self, height: int) -> Iterator[tuple[int, Float32]]:
        """Iterate over blocks of rows; see :class:`ColumnSource`."""
        blocks = self._rows(height)
        # With a lag the first block of deltas yields one row less, which would shift every later block.
        return recut(blocks, height, self.num_rows) if self._lags else blocks

    def _rows(self, height: int) -> Iterator[tuple[int, Float32]]:
        pool = BufferPool(2)
        previous = np.empty((0, self._reader.num_columns), np.float32)
        for first, block in self._reader.row_blocks(height, self.ahead):
            deltas = np.concatenate([previous, block]) if self._lags else block
            rows = slice(first - len(previous), first + len(block))
            lr = None if self._lr is None else self._lr.block(rows, slice(None)).astype(np.float32)
            if self._lags:
                previous = block[-1:].copy()
            features = self._features(deltas, lr, pool)
            if self._groups is not None and len(features):
                sums = np.zeros((len(features), self._groups.count, self._each))
                self._groups.add(features.reshape(len(features), -1, self._each), 0, 0, sums)
                features = _narrow(sums)
            if len(features):
                yield max(0, first - self._lags), features


@np.errstate(over="ignore")
def _square(values: Float32, out: Float32) -> None:
    """A square that overflows is found by its column's norm, which names it."""
    np.multiply(values, values, out=out)


@np.errstate(over="ignore")
def _narrow(sums: Float64) -> Float32:
    return sums.reshape(len(sums), -1).astype(np.float32)


class _Groups:
    """The group of each column of a recording."""

    def __init__(self, groups: Positions, columns: int) -> None:
        if groups.shape != (columns,) or groups.dtype.kind not in "iu" or groups.min() < 0:
            raise ValueError(f"groups are {groups.dtype} {groups.shape}, not {columns} numbers from 0")
        self._of_column = groups.astype(np.int64)
        self.count = int(groups.max()) + 1
        positions = np.arange(columns)
        self._first = np.full(self.count, columns)
        np.minimum.at(self._first, self._of_column, positions)
        self._stop = np.zeros(self.count, np.int64)
        np.maximum.at(self._stop, self._of_column, positions + 1)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The narrowest range of columns that contains the members of groups ``first`` to ``last``."""
        if first == last:
            return 0, 0
        return int(self._first[first:last].min()), int(self._stop[first:last].max())

    def add(self, features: Float32, begin: int, first: int, sums: Float64) -> None:
        """Add features of consecutive columns to the sums of their groups.

        Args:
            features: (rows, columns, each) float32.
            begin: The first column.
            first: The group of the first of ``sums``.
            sums: (rows, groups, each) float64; members of other groups are ignored.
        """
        groups = self._of_column[begin : begin + features.shape[1]] - first
        wanted = (groups >= 0) & (groups < sums.shape[1])
        if not wanted.all():
            features, groups = features[:, wanted], groups[wanted]
        if not len(groups):
            return
        if (np.diff(groups) < 0).any():
            order = np.argsort(groups, kind="stable")
            features, groups = features[:, order], groups[order]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        sums[:, groups[starts]] += np.add.reduceat(features, starts, axis=1, dtype=np.float64)
