"""Several processes write a shard: each compresses its own columns and writes them to their place in the one file.

The file is, byte for byte, the one that a single writer makes, so readers needn't know, and a recording is continued by
any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar, cast

import google_crc32c

from causalprune.base.compute.runtime import PeerFailure
from causalprune.base.errors import ExitCode, translate
from causalprune.base.files import write_at
from causalprune.trajectory.codec import CHECKSUM
from causalprune.trajectory.commits import ShardFile
from causalprune.trajectory.schema import BlockShape
from causalprune.trajectory.shard import shard_tail
from causalprune.trajectory.storage.location import Fence, Location

Result = TypeVar("Result")

_POLYNOMIAL = 0x82F63B78
"""That of CRC32C, with the lowest power in the highest bit."""


class Partners(Protocol):
    """The processes that write a recording together, in the order of their columns.

    Attributes:
        rank: The number of this one; number 0 keeps the commit log.
        count: How many there are.
    """

    rank: int
    count: int

    def gather(self, value: Any) -> list[Any]:
        """The values of all of them, by rank; each must call this, and waits for the others."""

    def close(self) -> None:
        """Nothing will be gathered any more."""


def own_columns(shape: BlockShape, rank: int, count: int) -> slice:
    """The columns that a process writes: whole chunks, their numbers differing by at most one; perhaps none."""
    first, last = (shape.chunks * number // count * shape.width for number in (rank, rank + 1))
    return slice(min(first, shape.columns), min(last, shape.columns))


def together(partners: Partners, action: Callable[[], Result]) -> list[Result]:
    """Let each process do its part; one's failure is that of all.

    Returns:
        What ``action`` returned in each, by rank.

    Raises:
        CausalpruneError: In a process, what its own ``action`` raised; in those where it didn't, :class:`PeerFailure`.
    """
    value, failure = None, None
    try:
        value = action()
    except BaseException as error:
        failure = error
    code = None
    if failure is not None:
        code = int(getattr(translate(failure) or failure, "exit_code", ExitCode.INTERNAL))
    found = partners.gather((code, value if failure is None else f"{failure}"))
    if failure is not None:
        raise failure
    for code, said in found:
        if code is not None:
            raise PeerFailure(code, f"{said}")
    return [value for _, value in found]


@dataclass(frozen=True)
class _Piece:
    """What the others need to know of a process's chunks."""

    lengths: list[int]
    table: bytes
    checksum: int
    path: str
    noted: Any

    @property
    def size(self) -> int:
        return sum(self.lengths)


def write_shard_together(
    location: Location,
    encode: Callable[[], tuple[list[bytes], Any]],
    partners: Partners,
    fence: Fence,
    announce: Callable[[ShardFile], None],
    commit: Callable[[ShardFile, list[Any]], None],
) -> None:
    """Write a block of rows as a shard and commit it, or fail in all processes alike.

    Every process calls this for the same block. Memory: this process's part of the block, compressed.

    Args:
        location: The shard, on a disk that all processes see.
        encode: Returns the chunks of this process's columns, and what it has noted of them.
        partners: The processes.
        fence: See :func:`causalprune.trajectory.shard.write_shard`.
        announce: The same; called in every process.
        commit: Records, durably, that the file is in place; gets what each process has noted, and is called in the
            first one only.

    Raises:
        CausalpruneError: Whatever stopped this process; :class:`PeerFailure` if it was another.
    """
    chunks: list[bytes] = []
    with ExitStack() as stack:

        def describe() -> _Piece:
            encoded, noted = encode()
            chunks.extend(encoded)
            checksum = 0
            for data in chunks:
                checksum = google_crc32c.extend(checksum, data)
            path = ""
            if partners.rank == 0:
                path = f"{cast(Any, stack.enter_context(location.writing(fence))).name}"
            table = b"".join(data[-CHECKSUM.size :] for data in chunks)
            return _Piece(list(map(len, chunks)), table, checksum, path, noted)

        pieces = together(partners, describe)
        path, begins = pieces[0].path, list(accumulate((piece.size for piece in pieces), initial=0))
        checksum = 0
        for piece in pieces:
            checksum = combined_checksum(checksum, piece.checksum, piece.size)
        lengths = [length for piece in pieces for length in piece.lengths]
        tail, identity = shard_tail(lengths, b"".join(piece.table for piece in pieces), checksum)
        own = begins[partners.rank]
        together(partners, lambda: write_at(path, own, chunks, known_as=f"{location}"))

        def finish() -> None:
            announce(identity)
            if partners.rank == 0:
                write_at(path, begins[-1], [tail], known_as=f"{location}")
                # The file gets its name.
                stack.close()
                commit(identity, [piece.noted for piece in pieces])

        together(partners, finish)


def combined_checksum(first: int, second: int, length: int) -> int:
    """The CRC32C of two pieces of data, one behind the other, from those of each.

    Args:
        first: That of the first piece; 0 for nothing.
        second: That of the second one.
        length: Of the second one, in bytes.
    """
    # The first is multiplied by x^(8·length), as zeros behind it would do.
    factor, power, bits = 1 << 31, 1 << 30, 8 * length
    while bits:
        if bits & 1:
            factor = _product(power, factor)
        power, bits = _product(power, power), bits >> 1
    return _product(factor, first) ^ second


def _product(a: int, b: int) -> int:
    """Of two polynomials over GF(2), modulo that of CRC32C."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def plain_notes(noted: Any) -> Any:
    """What a recorder has noted, with numbers for tensors, which may be on a GPU."""
    if isinstance(noted, dict):
        return {name: plain_notes(value) for name, value in noted.items()}
    return noted.tolist() if hasattr(noted, "tolist") else noted


def summed_notes(parts: list[dict[str, Any]], before: dict[str, Any]) -> dict[str, Any]:
    """What processes have noted of their own columns, as one of all columns would have.

    Args:
        parts: What each has noted.
        before: Counts of earlier rows, which each has of all columns.
    """
    if len(parts) == 1 or "vanished" not in parts[0]:
        return parts[0]
    rows = parts[0]["vanished"]
    sums = {row: [sum(n) for n in zip(*(part["vanished"][row] for part in parts), strict=True)] for row in rows}
    return {**parts[0], "vanished": sums | before}
