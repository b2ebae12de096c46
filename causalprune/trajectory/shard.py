"""One shard: the chunks of a block of rows one after the other, a table of their checksums, Zarr's index of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

import google_crc32c
import numpy as np

from causalprune.trajectory.codec import CHECKSUM, Codec, checked_body, find_codec
from causalprune.trajectory.commits import ShardFile
from causalprune.trajectory.schema import BlockShape
from causalprune.trajectory.storage.location import Fence, Location, damaged
from causalprune.trajectory.threads import Helpers

PIECE_ROWS = 8
"""Rows of a chunk that are rounded and checked together."""


def index_bytes(shape: BlockShape) -> int:
    """Length of a shard's index: offset and length of each chunk, and a CRC32C."""
    return 16 * shape.chunks + CHECKSUM.size


def tail_bytes(shape: BlockShape) -> int:
    """Length of what follows a shard's chunks: the table of their CRC32Cs, and the index."""
    return CHECKSUM.size * shape.chunks + index_bytes(shape)


class NonFiniteError(Exception):
    """The value at (row, column) of a block is NaN or infinite."""

    def __init__(self, row: int, column: int, value: float) -> None:
        super().__init__(row, column, value)
        self.row = row
        self.column = column
        self.value = value


def write_shard(
    location: Location,
    block: np.ndarray,
    shape: BlockShape,
    codec: Codec,
    fence: Fence,
    announce: Callable[[ShardFile], None] | None = None,
    helpers: Helpers | None = None,
) -> ShardFile:
    """Write a block of rows as a shard, atomically.

    Missing rows are stored as NaN, padding columns as zero. Memory: three chunks a thread.

    Args:
        location: The shard.
        block: (n, P_active) float32, 1 ≤ n ≤ B; not modified, and not read any more when ``announce`` is called.
        shape: The shape of the recording.
        codec: Its codec.
        fence: Raises if another writer has taken over.
        announce: Called with the file's identity when it is complete, just before it gets its final name.
        helpers: Threads that compress chunks, too; the bytes are the same however many there are.

    Raises:
        NonFiniteError: The block contains NaN or infinity; nothing is written.
        LockedError: By the fence.
        StorageError: Storage refused.
    """
    chunks = encoded_chunks(block, shape, codec, helpers or Helpers(0))
    lengths, table = [], []
    checksum = 0
    # Closed before the block may be used again, also if a write fails.
    with location.writing(fence) as file, closing(chunks):
        for parts in chunks:
            for data in parts:
                file.write(data)
                checksum = google_crc32c.extend(checksum, data)
            table.append(data[-CHECKSUM.size :])
            lengths.append(sum(map(len, parts)))
        end, identity = shard_tail(lengths, b"".join(table), checksum)
        file.write(end)
        if announce is not None:
            announce(identity)
    return identity


def encoded_chunks(
    block: np.ndarray, shape: BlockShape, codec: Codec, helpers: Helpers
) -> Generator[list[bytes], None, None]:
    """The chunks of a block of rows, encoded, each in parts of which the last one ends with the chunk's CRC32C.

    Args:
        block: (n, columns) float32.
        shape: Its shape; ``columns`` may be those of a part that begins at a chunk.
        codec: The recording's codec.
        helpers: See :func:`write_shard`.

    Raises:
        NonFiniteError: The block contains NaN or infinity.
    """
    return helpers.ordered(_ChunkEncoder(block, shape, codec), shape.chunks)


def shard_tail(lengths: Sequence[int], table: bytes, checksum: int) -> tuple[bytes, ShardFile]:
    """What follows a shard's chunks, and what identifies the whole file.

    Args:
        lengths: Of the chunks in bytes.
        table: Their CRC32Cs, one behind the other.
        checksum: The CRC32C of all chunks together.
    """
    index = np.empty((len(lengths), 2), "<u8")
    ends = np.cumsum(lengths)
    index[:, 0], index[:, 1] = ends - lengths, lengths
    entries = index.tobytes()
    index_checksum = google_crc32c.value(entries)
    end = table + entries + CHECKSUM.pack(index_checksum)
    size = sum(lengths) + len(end)
    return end, ShardFile(size, google_crc32c.extend(checksum, end), index_checksum, google_crc32c.value(table))


class _ChunkEncoder:
    """Rounds, checks and compresses chunks of a block; threads may call it at once."""

    def __init__(self, block: np.ndarray, shape: BlockShape, codec: Codec) -> None:
        self._block, self._shape, self._codec = block, shape, codec
        self._free: deque[np.ndarray] = deque()

    def __call__(self, number: int) -> list[bytes]:
        rows, start = len(self._block), number * self._shape.width
        part = self._block[:, start : start + self._shape.width]
        width = part.shape[1]
        chunk = self._memory()
        chunk[:, width:] = 0
        # A few rows at a time, so that they are still in the processor's cache for the check.
        for row in range(0, rows, PIECE_ROWS):
            piece = part[row : row + PIECE_ROWS]
            self._codec.round(piece, chunk[row : row + len(piece), :width])
            _require_finite(piece, row, start)
        parts = self._codec.encode(chunk)
        # Padding would be in the missing rows of other chunks.
        if width == self._shape.width:
            self._free.append(chunk)
        return parts

    def _memory(self) -> np.ndarray:
        try:
            return self._free.pop()
        except IndexError:
            chunk = np.empty((self._shape.rows, self._shape.width), np.float32)
            chunk[len(self._block) :] = np.nan
            return chunk


def _require_finite(piece: np.ndarray, first_row: int, first_column: int) -> None:
    finite = np.isfinite(piece)
    if not finite.all():
        row, column = np.unravel_index(int(np.argmin(finite)), finite.shape)
        raise NonFiniteError(first_row + int(row), first_column + int(column), float(piece[row, column]))


def read_index(data: np.ndarray, size: int, shape: BlockShape, source: str) -> tuple[np.ndarray, int]:
    """Decode a shard's index.

    Args:
        data: The last :func:`index_bytes` of the shard, or more.
        size: Length of the shard in bytes.
        shape: The shape of the recording.
        source: The shard's name, for the error message.

    Returns:
        (chunks, 2) int64, offset and length of each chunk within the file; and the index's CRC32C.

    Raises:
        CorruptError: The index is damaged, or a chunk is missing or lies outside the file.
    """
    length = index_bytes(shape)
    if len(data) < length:
        raise damaged(source, expected=f"at least {length} bytes", found=len(data))
    body, checksum = checked_body(data[-length:], f"{source} index")
    index = body.view("<u8").reshape(-1, 2)
    ends_at = size - length
    if (index > ends_at).any() or (index.sum(axis=1) > ends_at).any():
        raise damaged(f"{source} index", expected=f"chunks within {ends_at} bytes", found="others")
    return index.astype(np.int64), checksum


def identify_file(location: Location, shape: BlockShape) -> ShardFile:
    """What identifies a shard, found by reading all of it.

    ``chunks_checksum`` is that of the checksums which follow the chunks, whether or not the shard has a table of them.

    Raises:
        CorruptError: There is no such file, or its index is damaged.
        ReplacedError: The file was replaced meanwhile.
        StorageError: Storage refused.
    """
    checksum = 0
    sums = np.zeros(CHECKSUM.size * shape.chunks, np.uint8)
    try:
        with location.open() as file:
            index, index_checksum = read_index(file.tail(tail_bytes(shape)), file.size, shape, f"{location}")
            # Where each byte of the checksums is, in the order of the file.
            places = (index.sum(axis=1)[:, None] + np.arange(-CHECKSUM.size, 0)).ravel()
            size = file.size
            memory = np.empty(min(size, 4 * file.run_bytes), np.uint8)
            for begin in range(0, size, max(1, len(memory))):
                data = file.read(begin, min(begin + len(memory), size), lambda count: memory[:count])
                checksum = google_crc32c.extend(checksum, data)
                inside = (places >= begin) & (places < begin + len(data))
                sums[inside] = data[places[inside] - begin]
            return ShardFile(size, checksum, index_checksum, google_crc32c.value(sums))
    except FileNotFoundError as error:
        raise damaged(location, expected="a shard", found="no such file") from error


def estimate_bytes(delta: np.ndarray, *, rows: int, codec: str = "balanced") -> int:
    """Predict the bytes of a recording's shards by compressing one real row.

    Args:
        delta: (P_active,) float32, the Δθ of one step.
        rows: Rows to record.
        codec: ``exact``, ``balanced`` or ``small``.

    Returns:
        Bytes of all shards; the rest of a store is small in comparison.

    Raises:
        UsageError: An unknown codec.
    """
    chosen = find_codec(codec)
    shape = BlockShape.choose(len(delta), rows)
    # Blosc leaves numbers unshuffled whose count isn't a multiple of 8; in a recording the rows of a block make it one.
    padded = np.zeros(-(-len(delta) // 8) * 8, np.float32)
    padded[: len(delta)] = delta
    rounded = np.empty_like(padded)
    chosen.round(padded, rounded)
    # At least as much data at once as in the recording, whose blocks have several rows: compressors need enough data.
    length = -(-max(shape.width, chosen.block_bytes // 4) // 8) * 8
    chunks = (rounded[start : start + length] for start in range(0, len(rounded), length))
    row_bytes = sum(len(part) for chunk in chunks for part in chosen.encode(chunk))
    return rows * row_bytes + shape.shards(rows) * tail_bytes(shape)
