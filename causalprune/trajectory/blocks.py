"""How the rows × columns of a recording are cut into shards and chunks."""

from __future__ import annotations

from dataclasses import dataclass

from causalprune.base.errors import CorruptError, UsageError

BLOCK_BYTES = 256 * 2**20
"""Memory of one block of rows: what a shard holds before it is encoded."""

MAX_BLOCK_ROWS = 4096
MAX_CHUNK_BYTES = 2**28
"""More than this in one chunk isn't ours; checked before anything is allocated."""

MAX_ROWS = 2**40


@dataclass(frozen=True)
class BlockShape:
    """The cut of a recording.

    Attributes:
        columns: P_active, the number of columns.
        rows: B, the rows of a block; one block is one shard.
        width: C, the columns of a chunk.
    """

    columns: int
    rows: int
    width: int

    @classmethod
    def choose(cls, columns: int, max_rows: int, block_rows: int | None = None) -> BlockShape:
        """Cut a recording of up to ``max_rows`` rows.

        B is the largest power of two with B ≤ 64 and 4·B·P_active ≤ :data:`BLOCK_BYTES`, at least 1, and no larger
        than the smallest power of two ≥ ``max_rows``. C is 16384 where B ≥ 16, else 65536, and at most P_active.

        Args:
            columns: P_active ≥ 1.
            max_rows: Rows the recording may get, ≥ 1.
            block_rows: B, where the rule isn't wanted.

        Raises:
            UsageError: ``block_rows`` is out of range.
        """
        if block_rows is None:
            fitting = min(64, max(1, BLOCK_BYTES // (4 * columns)))
            block_rows = min(1 << (fitting.bit_length() - 1), 1 << (max_rows - 1).bit_length())
        elif not 1 <= block_rows <= MAX_BLOCK_ROWS:
            raise UsageError("block rows", expected=f"1 to {MAX_BLOCK_ROWS}", found=f"{block_rows}")
        width = 16384 if block_rows >= 16 else 65536
        return cls(columns, block_rows, min(width, columns))

    @classmethod
    def from_json(cls, columns: object, rows: object, width: object, source: str) -> BlockShape:
        """Check numbers that were read from ``source``.

        Raises:
            CorruptError: They can't be those of a recording.
        """
        if type(columns) is int and type(rows) is int and type(width) is int:
            shape = cls(columns, rows, width)
            if 1 <= width <= columns and 1 <= rows <= MAX_BLOCK_ROWS and shape.chunk_bytes <= MAX_CHUNK_BYTES:
                return shape
        raise CorruptError(
            source,
            expected=f"columns ≥ chunk width ≥ 1, 1 to {MAX_BLOCK_ROWS} block rows, chunks ≤ {MAX_CHUNK_BYTES} bytes",
            found=f"{columns}, {width}, {rows}"[:120],
        )

    @property
    def chunks(self) -> int:
        """Chunks in a shard."""
        return -(-self.columns // self.width)

    @property
    def padded_columns(self) -> int:
        """Columns of a shard: the last chunk is padded to full width."""
        return self.chunks * self.width

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return 4 * self.rows * self.width

    @property
    def block_bytes(self) -> int:
        """Bytes of a decoded block of rows, without padding."""
        return 4 * self.rows * self.columns

    def shards(self, rows: int) -> int:
        """Shards that ``rows`` rows take."""
        return -(-rows // self.rows)
