"""Reading a recording by blocks of columns or of rows."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial

import google_crc32c
import numpy as np

from causalprune.base.errors import CorruptError, UsageError
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.commits import CommitLog
from causalprune.trajectory.fits import Fit, FitStore
from causalprune.trajectory.layout import METADATA, StoreLayout
from causalprune.trajectory.schema import RecordingInfo, RecordingSchema
from causalprune.trajectory.shard_reader import Kernel, ShardReader
from causalprune.trajectory.steps import STEP_FIELDS, Steps
from causalprune.trajectory.storage import Location
from causalprune.trajectory.threads import BufferPool, prefetched
from causalprune.trajectory.zarr_files import (
    REMEDY,
    attributes_checksum,
    canonical_bytes,
    delta_document,
    read_array,
    read_attributes,
    read_document,
    require_document,
)

_ATTEMPTS = 5


class RecordingReader:
    """The rows that were recorded when it was opened; also while a writer goes on.

    Reading the metadata needs neither zarr nor torch. Nothing is decoded before it is asked for.

    Args:
        store: The store's files.
        name: The recording.
        index: The store's parameters.

    Attributes:
        name: Name of the recording.
        index: The store's parameters.
        info: How it was made.
        schema: How it is laid out.
        num_rows: T, from the commit log.
        num_columns: P_active.
        finished: Whether the recording is complete.

    Raises:
        CorruptError: A file is missing, damaged, or contradicts another.
    """

    def __init__(self, store: StoreLayout, name: str, index: ParameterIndex) -> None:
        self.name = name
        self.index = index
        self._layout = store.recording(name)
        attributes = read_attributes(self._layout.metadata, "recording")
        self._seed = attributes_checksum(attributes)
        self.schema = RecordingSchema.from_json(attributes, f"{self._layout.metadata}")
        self.info: RecordingInfo = self.schema.info
        self.num_columns = self.schema.shape.columns
        if self.num_columns > index.total:
            raise CorruptError(
                f"{self._layout.metadata}",
                expected=f"at most {index.total} columns",
                found=f"{self.num_columns}",
                remedy=REMEDY,
            )
        self._log = self._consistent_log()
        self.num_rows = self._log.rows
        self.finished = self._log.finished
        self._shards = ShardReader(
            self._layout, self.schema.shape, self.schema.codec, self._log, self.read_log, self.describe_column
        )
        self._fits = FitStore(self._layout, store.fits_lock)

    def read_log(self) -> CommitLog:
        """Read the commit log again, with what was committed since this reader was opened.

        Raises:
            CorruptError: It is missing or damaged.
        """
        return CommitLog.read(self._layout.commit_log, self._seed, self.schema.shape.rows, self.schema.max_rows)

    def _consistent_log(self) -> CommitLog:
        """Read the log and check that the deltas' metadata agree with it."""
        for attempt in range(_ATTEMPTS):
            # The log first: the shape is cut to T before the log says that the recording is finished.
            log = self.read_log()
            try:
                self._require_delta(log)
                return log
            except CorruptError:
                # A writer that finishes or reopens the recording at this moment explains it; nothing else does.
                now = self.read_log()
                if attempt == _ATTEMPTS - 1 or (now.rows, now.finished) == (log.rows, log.finished):
                    raise
        raise AssertionError

    def _require_delta(self, log: CommitLog) -> None:
        file = self._layout.delta_metadata
        shape = read_document(file, "array").get("shape")
        rows = shape[0] if isinstance(shape, list) and shape and type(shape[0]) is int else -1
        if not log.rows <= rows <= (log.rows if log.finished else self.schema.max_rows):
            raise CorruptError(
                f"{file}", expected=f"{log.rows} rows, as in the commit log", found=f"{shape}"[:80], remedy=REMEDY
            )
        require_document(file, delta_document(self.schema.shape, rows, self.schema.codec))
        if log.finished or not self._layout.steps.exists():
            return
        # They are written just before the log's last line: without that line, the log must at least have their rows.
        shape = read_document(self._layout.steps / METADATA, "array").get("shape")
        if shape != [len(STEP_FIELDS), log.rows]:
            raise CorruptError(
                f"{self._layout.commit_log}",
                expected=f"as many rows as steps {shape}"[:80],
                found=f"{log.rows}",
                remedy=REMEDY,
            )

    @cached_property
    def active(self) -> np.ndarray:
        """(P,) bool, True where a parameter has a column.

        Raises:
            CorruptError: Missing or damaged.
        """
        active = read_array(self._layout.active, (self.index.total,), np.dtype(bool), ("parameter",))
        checksum = google_crc32c.value(active.view(np.uint8))
        if checksum != self.schema.active_checksum or np.count_nonzero(active) != self.num_columns:
            raise CorruptError(
                f"{self._layout.active}",
                expected=f"CRC32C {self.schema.active_checksum:08x}",
                found=f"{checksum:08x}",
                remedy=REMEDY,
            )
        active.flags.writeable = False
        return active

    @cached_property
    def column_index(self) -> np.ndarray:
        """(P_active,) int64, each column's position in the parameter index."""
        return np.flatnonzero(self.active)

    def describe_column(self, column: int) -> str:
        """Name a column's parameter and its element, such as ``fc1.weight[3, 17]``."""
        name, element = self.index.locate(int(self.column_index[column]))
        return f"{name}{list(element)}"

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return self.schema.codec.name

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what was recorded: equal digests mean equal metadata, shards and scalars."""
        files = [[commit.rows, *commit.file.to_json().values()] for commit in self._log.commits]
        digest = hashlib.sha256(canonical_bytes([self.schema.to_json(), self.index.to_json(), files]))
        digest.update(self.steps.to_matrix().tobytes())
        return digest.hexdigest()

    @cached_property
    def steps(self) -> Steps:
        """The scalars of each row."""
        return self._log.steps()

    @property
    def loss_change(self) -> np.ndarray:
        """ΔL_t = loss after − loss before, (T,) float64."""
        return self.steps.loss_change

    @property
    def block_width(self) -> int:
        """C, the width of a chunk: column blocks of a multiple of it decode nothing twice."""
        return self.schema.shape.width

    @property
    def block_rows(self) -> int:
        """B, the rows of a shard: row blocks of a multiple of it decode nothing twice."""
        return self.schema.shape.rows

    @property
    def stored_bytes(self) -> int:
        """Bytes of the shards."""
        return self._log.stored_bytes

    @property
    def raw_bytes(self) -> int:
        """Bytes of the rows as float32."""
        return 4 * self.num_rows * self.num_columns

    @property
    def bytes_read(self) -> int:
        """Stored bytes that this reader has read so far."""
        return self._shards.bytes_read

    @property
    def seconds(self) -> tuple[float, float]:
        """Time that all threads together took to read, and to decode and square, so far."""
        return self._shards.read_seconds, self._shards.decode_seconds

    @property
    def path(self) -> Location:
        """The recording's folder."""
        return self._layout.root

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Read a rectangle, given by starts and stops: (rows, columns) float32, as :meth:`read_columns`."""
        if not 0 <= rows.start <= rows.stop <= self.num_rows:
            raise IndexError(f"rows {rows.start} to {rows.stop} of {self.num_rows}")
        if not 0 <= columns.start <= columns.stop <= self.num_columns:
            raise IndexError(f"columns {columns.start} to {columns.stop} of {self.num_columns}")
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        self._shards.read(rows, columns, out)
        return out

    def columns_of(self, name: str) -> slice:
        """The columns of one parameter, such as ``"fc1.weight"``.

        Raises:
            UsageError: The store has no such parameter.
        """
        names = [entry.name for entry in self.index]
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise UsageError(
                "parameter", expected=f"one of {', '.join(near or names[:4])}"[:200], found=repr(name)[:80]
            )
        entry = self.index[name]
        start, stop = np.searchsorted(self.column_index, [entry.offset, entry.stop])
        return slice(int(start), int(stop))

    def read_columns(
        self, start: int, stop: int, out: np.ndarray | None = None, kernel: Kernel | None = None
    ) -> np.ndarray:
        """Read all rows of columns ``start`` to ``stop``.

        Args:
            start: First column.
            stop: Column behind the last.
            out: (T, stop − start) float32 to read into; allocated when left out.
            kernel: ``kernel(values, out)`` puts into each part of ``out`` what becomes of its values, such as
                ``lambda values, out: np.multiply(values, values, out=out)``; may be called in several threads.

        Returns:
            ``out``, the signed Δθ.

        Raises:
            CorruptError: A shard is missing or damaged.
            DataError: A value is NaN or infinite.
            MismatchError: The rows were recorded anew since this reader was opened.
        """
        if not 0 <= start <= stop <= self.num_columns:
            raise IndexError(f"columns {start} to {stop} of {self.num_columns}")
        out = self._destination((self.num_rows, stop - start), out)
        self._shards.read(slice(0, self.num_rows), slice(start, stop), out, kernel)
        return out

    def read_rows(
        self, start: int, stop: int, out: np.ndarray | None = None, kernel: Kernel | None = None
    ) -> np.ndarray:
        """Read all columns of rows ``start`` to ``stop``: (stop − start, P_active) float32, as :meth:`read_columns`."""
        if not 0 <= start <= stop <= self.num_rows:
            raise IndexError(f"rows {start} to {stop} of {self.num_rows}")
        out = self._destination((stop - start, self.num_columns), out)
        self._shards.read(slice(start, stop), slice(0, self.num_columns), out, kernel)
        return out

    @staticmethod
    def _destination(shape: tuple[int, int], out: np.ndarray | None) -> np.ndarray:
        if out is None:
            return np.empty(shape, np.float32)
        if out.shape != shape or out.dtype != np.float32:
            raise ValueError(f"out is {out.dtype} {out.shape}, not float32 {shape}")
        return out

    def column_blocks(
        self,
        width: int | None = None,
        order: Sequence[int] | None = None,
        prefetch: int = 2,
        columns: np.ndarray | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Iterate over blocks of columns, decoded ahead in threads.

        Memory: at most ``prefetch + 1`` blocks of 4·T·width bytes, two chunks a thread, and what the caller keeps.

        Args:
            width: Columns of a block; a chunk's when left out.
            order: Numbers of the blocks to visit, block b being columns b·width and on; all in order when left out.
            prefetch: Blocks decoded ahead, each in a thread of its own; 0 decodes in the calling thread.
            columns: Only these columns, sorted and distinct; blocks without any are not read.

        Yields:
            (first column, (T, ≤ width) float32 signed Δθ). With ``columns``, the position of the block's first column
            in ``columns``, and only the block's columns that are in it.
        """
        width = width or self.block_width
        pool = BufferPool(prefetch + 1)
        numbers = range(-(-self.num_columns // width)) if order is None else order
        tasks: Iterator[Callable[[], tuple[int, np.ndarray]]]
        if columns is None:
            tasks = (partial(self._column_block, b * width, width, pool) for b in numbers)
        else:
            bounds = np.searchsorted(columns, [(b * width, (b + 1) * width) for b in numbers]).tolist()
            tasks = (partial(self._chosen_columns, columns, i, j, pool) for i, j in bounds if i < j)
        return prefetched(tasks, prefetch)

    def _column_block(self, start: int, width: int, pool: BufferPool) -> tuple[int, np.ndarray]:
        stop = min(start + width, self.num_columns)
        return start, self.read_columns(start, stop, pool.take(self.num_rows, stop - start))

    def _chosen_columns(self, columns: np.ndarray, first: int, last: int, pool: BufferPool) -> tuple[int, np.ndarray]:
        chosen = columns[first:last]
        start, stop = int(chosen[0]), int(chosen[-1]) + 1
        whole = self.read_columns(start, stop, pool.take(self.num_rows, stop - start))
        return first, whole if len(chosen) == stop - start else whole[:, chosen - start]

    def row_blocks(self, height: int | None = None, prefetch: int = 2) -> Iterator[tuple[int, np.ndarray]]:
        """Iterate over blocks of rows, decoded ahead in threads.

        Memory: at most ``prefetch + 1`` blocks of ``height`` rows, or of B where that is more or where ``height`` is
        no multiple of B, and one more; two chunks a thread; and what the caller keeps.

        Args:
            height: Rows of a block; B when left out.
            prefetch: Blocks decoded ahead, each in a thread of its own; 0 decodes in the calling thread.

        Yields:
            (first row, (≤ height, P_active) float32 signed Δθ).
        """
        height = height or self.block_rows
        aligned = height % self.block_rows == 0
        decoded = height if aligned else self.block_rows
        pool = BufferPool(prefetch + 1)
        tasks = (partial(self._row_block, start, decoded, pool) for start in range(0, self.num_rows, decoded))
        blocks = prefetched(tasks, prefetch)
        return blocks if aligned else recut(blocks, height, self.num_rows)

    def _row_block(self, start: int, height: int, pool: BufferPool) -> tuple[int, np.ndarray]:
        stop = min(start + height, self.num_rows)
        return start, self.read_rows(start, stop, pool.take(stop - start, self.num_columns))

    @property
    def fits(self) -> tuple[str, ...]:
        """Names of the fits beside this recording."""
        return self._fits.names()

    def read_fit(self, name: str) -> Fit:
        """Read a fit; see :meth:`FitStore.read <causalprune.trajectory.fits.FitStore.read>`."""
        return self._fits.read(name)

    def verify(self) -> list[str]:
        """Read everything there is and compare it with its checksums.

        Returns:
            A line a problem, each naming the file; empty when all is well.
        """
        from causalprune.trajectory.verify import verify_recording

        return verify_recording(self._layout, self._fits, self.read_log, lambda: self.active)


def recut(blocks: Iterator[tuple[int, np.ndarray]], height: int, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut consecutive blocks of rows at other places; a block within one of them is a view."""
    first, block = next(blocks, (0, np.empty((0, 0), np.float32)))
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        parts = []
        position = start
        while position < stop:
            if position >= first + len(block):
                first, block = next(blocks)
            part = block[position - first : stop - first]
            parts.append(part)
            position += len(part)
        yield start, parts[0] if len(parts) == 1 else np.concatenate(parts)
        del parts, part
