"""Reading from the shards of a recording, each checked against the commit log before its first use."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import google_crc32c
import numpy as np

from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.trajectory.codec import CHECKSUM
from causalprune.trajectory.commits import CommitLog, ShardFile
from causalprune.trajectory.layout import RecordingLayout
from causalprune.trajectory.schema import RecordingSchema
from causalprune.trajectory.shard import index_bytes, read_index, tail_bytes
from causalprune.trajectory.storage.location import OpenFile, ReplacedError, damaged
from causalprune.trajectory.threads import BufferPool

Kernel = Callable[[np.ndarray, np.ndarray], object]
"""``kernel(source, out)``: computes ``out`` from decoded values; both may be the same array."""

_FREE_BUFFERS = 4
_ATTEMPTS = 5


@dataclass(frozen=True, eq=False)
class _Piece:
    """What to read from one shard, and where to put it."""

    shard: int
    rows: slice
    columns: slice
    out: np.ndarray
    kernel: Kernel | None
    scratch: np.ndarray


@dataclass(frozen=True, eq=False)
class _Index:
    """What the end of a shard says of its chunks.

    Attributes:
        version: Version of the file.
        chunks: (chunks, 2) int64, offset and length of each.
        sums: The CRC32C of each, four bytes a chunk; empty in a shard of format version 1.
        finite: (chunks,) bool, True for those that were found to have finite values only: with the same CRC32C they
            have them still.
    """

    version: Hashable
    chunks: np.ndarray
    sums: bytes
    finite: np.ndarray


class ShardReader:
    """Decodes rectangles of a recording into the caller's arrays; thread-safe.

    Args:
        layout: The recording's files.
        schema: Its shape and codec.
        log: Its commits when it was opened: later rows are never looked at.
        reload: Reads the log again. A writer may replace the last shard with a fuller one at any time.
        describe: Names the parameter of a column, for error messages.
    """

    def __init__(
        self,
        layout: RecordingLayout,
        schema: RecordingSchema,
        log: CommitLog,
        reload: Callable[[], CommitLog],
        describe: Callable[[int], str],
    ) -> None:
        self.layout = layout
        self.shape = schema.shape
        self.rows = log.rows
        self.bytes_read = 0
        self.read_seconds = self.decode_seconds = 0.0
        self._codec = schema.codec
        self._log = log
        self._reload = reload
        self._describe = describe
        self._indices: dict[int, _Index] = {}
        self._lock = threading.Lock()
        self._scratch = BufferPool(_FREE_BUFFERS)
        self._encoded = BufferPool(_FREE_BUFFERS)

    def read(self, rows: slice, columns: slice, out: np.ndarray, kernel: Kernel | None = None) -> None:
        """Decode a rectangle.

        Args:
            rows: Start and stop within the recorded rows.
            columns: Start and stop within the columns.
            out: (rows, columns) float32.
            kernel: Applied to each piece; by default, the values are copied.

        Raises:
            CorruptError: A shard is missing or damaged.
            DataError: A value is NaN or infinite.
            MismatchError: The rows were recorded anew since the recording was opened.
            StorageError: Storage refused.
        """
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        scratch = self._scratch.take(self.shape.rows, self.shape.width)
        height = self.shape.rows
        for number in range(rows.start // height, self.shape.shards(rows.stop)):
            first = number * height
            within = slice(max(rows.start - first, 0), min(rows.stop - first, height))
            part = out[first + within.start - rows.start : first + within.stop - rows.start]
            self._read_shard(_Piece(number, within, columns, part, kernel, scratch))

    def _read_shard(self, piece: _Piece) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self._read_open_shard(piece)
                return
            except ReplacedError:
                # It was replaced while being read: decode everything again, from a single version.
                self._indices.pop(piece.shard, None)
        raise CorruptError(
            f"{self.layout.shard(piece.shard)}",
            expected="a shard that stays while it is read",
            found="one replaced again and again",
            remedy="run the same command again",
        )

    def _read_open_shard(self, piece: _Piece) -> None:
        width = self.shape.width
        path = f"{self.layout.shard(piece.shard)}"
        first, stop = piece.columns.start // width, -(-piece.columns.stop // width)
        with self._open(piece.shard) as (file, index):
            for chunks in _runs(index.chunks[first:stop], first, file.run_bytes):
                part = index.chunks[chunks.start : chunks.stop]
                begin, end = int(part[:, 0].min()), int(part.sum(axis=1).max())
                started = time.perf_counter()
                encoded = file.read(begin, end, self._buffer)
                arrived = time.perf_counter()
                for chunk in chunks:
                    offset, length = index.chunks[chunk]
                    data = encoded[offset - begin : offset - begin + length]
                    _require_sum(data, index.sums, chunk, path)
                    self._decode(data, chunk, piece, path, index)
                with self._lock:
                    self.bytes_read += end - begin
                    self.read_seconds += arrived - started
                    self.decode_seconds += time.perf_counter() - arrived

    def _buffer(self, size: int) -> np.ndarray:
        return self._encoded.take(-(-size // 4)).view(np.uint8)[:size]

    def _decode(self, encoded: np.ndarray, chunk: int, piece: _Piece, path: str, index: _Index) -> None:
        columns, scratch = piece.columns, piece.scratch
        origin = chunk * self.shape.width
        start, stop = max(columns.start, origin), min(columns.stop, origin + self.shape.width)
        target = piece.out[:, start - columns.start : stop - columns.start]
        # A whole chunk that is laid out like its place in the caller's array needs no copy.
        whole = target.shape == scratch.shape and target.flags.c_contiguous
        decoded = target if whole else scratch
        self._codec.decode(encoded, decoded, f"{path} chunk {chunk}")
        values = decoded[piece.rows, start - origin : stop - origin]
        if not (index.sums and index.finite[chunk]):
            self._require_finite(values, piece, start)
            # The rest of a chunk that is read in part may be another matter.
            index.finite[chunk] = values.shape == scratch.shape
        if piece.kernel is not None:
            piece.kernel(values, target)
        elif not whole:
            np.copyto(target, values)

    def _require_finite(self, values: np.ndarray, piece: _Piece, start: int) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            row, column = (int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
            where = f"row {piece.shard * self.shape.rows + piece.rows.start + row}"
            raise DataError(
                f"delta of {where}, {self._describe(start + column)}",
                expected="a finite number",
                found=f"{values[row, column]}",
                remedy="record again with a smaller learning rate",
            )

    @contextmanager
    def _open(self, number: int) -> Iterator[tuple[OpenFile, _Index]]:
        """Open a shard, and check its end against the commit log."""
        location = self.layout.shard(number)
        for attempt in itertools.count():
            log, known = self._log, self._indices.get(number)
            with ExitStack() as stack:
                try:
                    file = stack.enter_context(location.open(known and known.version))
                    index = self._identify(number, file, log.candidates(number))
                except (CorruptError, FileNotFoundError) as error:
                    self._explain(number, error, log, attempt)
                    continue
                yield file, index
                return

    def _explain(self, number: int, error: Exception, log: CommitLog, attempt: int) -> None:
        """Raise what is wrong with a shard, unless a newer log may explain it."""
        self._log = self._reload()
        if self._log.rows < self.rows:
            raise MismatchError(
                f"{self.layout.root}",
                expected=f"{self.rows} rows, as when it was opened",
                found=f"{self._log.rows}",
                remedy="it was recorded anew meanwhile: run the same command again",
            ) from error
        # A writer may have replaced the last shard since the log was read; if so, the log has changed, too.
        if attempt == _ATTEMPTS or self._log.candidates(number) == log.candidates(number):
            if isinstance(error, CorruptError):
                raise error
            shard = self.layout.shard(number)
            raise damaged(shard, expected="a shard of the commit log", found="no such file") from error

    def _identify(self, number: int, file: OpenFile, candidates: list[ShardFile]) -> _Index:
        """Index of an open shard, which must be one of the log's candidates."""
        known = self._indices.get(number)
        if known is not None and known.version == file.version:
            return known
        path = self.layout.shard(number)
        data = file.tail(tail_bytes(self.shape))
        candidates = [c for c in candidates if c.size == file.size]
        if not candidates:
            raise damaged(path, expected="the length in the commit log", found=f"{file.size} bytes")
        chunks, checksum = read_index(data, file.size, self.shape, f"{path}")
        candidates = [c for c in candidates if c.index_checksum == checksum]
        if not candidates:
            raise damaged(f"{path} index", expected="the CRC32C in the commit log", found=f"{checksum:08x}")
        sums = data[: -index_bytes(self.shape)].tobytes()
        found = google_crc32c.value(sums)
        if all(c.chunks_checksum not in (None, found) for c in candidates):
            expected = "the CRC32C in the commit log"
            raise damaged(f"{path} table of checksums", expected=expected, found=f"{found:08x}")
        has_table = any(c.chunks_checksum == found for c in candidates)
        unknown = np.zeros(len(chunks), bool)
        self._indices[number] = index = _Index(file.version, chunks, sums if has_table else b"", unknown)
        return index


def _require_sum(data: np.ndarray, sums: bytes, chunk: int, path: str) -> None:
    """Check that a chunk is the one whose checksum the shard's table has."""
    begin = CHECKSUM.size * chunk
    expected, found = sums[begin : begin + CHECKSUM.size], data[-CHECKSUM.size :].tobytes()
    if sums and expected != found:
        raise damaged(f"{path} chunk {chunk}", expected=f"CRC32C {expected[::-1].hex()}", found=found[::-1].hex())


def _runs(index: np.ndarray, first: int, run_bytes: int) -> Iterator[range]:
    """Group consecutive chunks, numbered from ``first``, into runs of one chunk or at most ``run_bytes``."""
    begin, size = first, 0
    for chunk, length in enumerate(index[:, 1].tolist(), first):
        if size and size + length > run_bytes:
            yield range(begin, chunk)
            begin, size = chunk, 0
        size += length
    yield range(begin, first + len(index))
