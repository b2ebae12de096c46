"""How deltas are rounded and compressed, with codecs of the Zarr v3 specification."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, Literal

import google_crc32c
import numpy as np

from causalprune.trajectory.names import CODECS
from causalprune.trajectory.storage.location import damaged

LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
CRC32C = {"name": "crc32c"}
_BLOSC_HEADER = struct.Struct("<BBBBIII")
CHECKSUM = struct.Struct("<I")
_MANTISSA_BITS = 23


@dataclass(frozen=True)
class Codec:
    """One way to store float32 deltas; a subclass with another compressor than Blosc overrides the last three methods.

    Attributes:
        name: Its name in :data:`causalprune.trajectory.names.CODECS`, which is stored in the metadata.
        mantissa_bits: Explicit mantissa bits kept, of float32's 23: the relative error is at most 2^-(bits + 1).
        compressor: Blosc's inner compressor.
        level: Its compression level.
        shuffle: What Blosc groups first: equal bits of all values, or equal bytes.
        block_bytes: Blosc's block size; with 0 Blosc chooses.
        format_version: The oldest version of the recording's format in which the name means this.
        earlier: What the name means in older versions; a recording of these is read, and continued, with that.
    """

    name: str
    mantissa_bits: int
    compressor: str
    level: int
    shuffle: Literal["shuffle", "bitshuffle"] = "bitshuffle"
    block_bytes: int = 0
    format_version: int = 2
    earlier: Codec | None = None

    def round(self, values: np.ndarray, out: np.ndarray) -> None:
        """Round float32 values to the kept mantissa bits: to nearest, ties away from zero.

        Rounding is idempotent, so a block that is read and written again keeps its bits.

        Args:
            values: float32, finite.
            out: float32 of the same shape.
        """
        dropped = _MANTISSA_BITS - self.mantissa_bits
        if dropped == 0:
            np.copyto(out, values)
            return
        bits = out.view(np.uint32)
        np.add(values.view(np.uint32), np.uint32(1 << (dropped - 1)), out=bits)
        np.bitwise_and(bits, np.uint32((0xFFFFFFFF << dropped) & 0xFFFFFFFF), out=bits)

    def encode(self, chunk: np.ndarray) -> list[bytes]:
        """Compress a chunk of rounded values.

        Args:
            chunk: C-contiguous, of a numeric type.

        Returns:
            Two parts, the second being the CRC32C of the first.
        """
        blosc = _load_blosc()
        filters = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
        body = blosc.compress(chunk, self.compressor.encode(), self.level, filters[self.shuffle], self.block_bytes)
        return [body, CHECKSUM.pack(google_crc32c.value(body))]

    def decode(self, encoded: np.ndarray, out: np.ndarray, source: str) -> None:
        """Check and decompress what :meth:`encode` returned.

        Args:
            encoded: (n,) uint8.
            out: C-contiguous; receives exactly the decoded bytes.
            source: File and chunk, for the error message.

        Raises:
            CorruptError: The checksum is wrong, or the sizes aren't the declared ones.
        """
        if len(encoded) < _BLOSC_HEADER.size + CHECKSUM.size:
            raise damaged(source, expected="a compressed chunk", found=f"{len(encoded)} bytes")
        body, _ = checked_body(encoded, source)
        size, _, length = _BLOSC_HEADER.unpack(body[: _BLOSC_HEADER.size].tobytes())[-3:]
        if size != out.nbytes or length != len(body):
            expected = f"{out.nbytes} bytes compressed to {len(body)}"
            raise damaged(source, expected=expected, found=f"{size} compressed to {length}")
        try:
            _load_blosc().decompress(body, out)
        except (RuntimeError, ValueError) as error:
            raise damaged(source, expected="a compressed chunk", found=f"{error}"[:80]) from error

    def to_zarr(self, itemsize: int = 4) -> list[dict[str, Any]]:
        """The codecs of a chunk in Zarr's metadata; ``itemsize`` is the bytes per value."""
        configuration = {
            "cname": self.compressor,
            "clevel": self.level,
            "shuffle": self.shuffle,
            "typesize": itemsize,
            "blocksize": self.block_bytes,
        }
        return [LITTLE_ENDIAN, {"name": "blosc", "configuration": configuration}, CRC32C]


# LZ4 only finds repetition, and needs the bits apart. Zstandard also gives frequent bytes shorter codes, which works
# best with whole exponents; blocks larger than Blosc would choose are both faster and smaller. A higher level takes
# three times as long and saves hardly anything.
EXACT = Codec("exact", mantissa_bits=23, compressor="lz4", level=5)
BALANCED = Codec("balanced", mantissa_bits=10, compressor="lz4", level=5)
_SMALL_BEFORE = Codec("small", mantissa_bits=7, compressor="zstd", level=3, shuffle="shuffle", block_bytes=2**20)
SMALL = replace(_SMALL_BEFORE, level=1, format_version=4, earlier=_SMALL_BEFORE)


def find_codec(name: str, version: int | None = None) -> Codec:
    """The codec of that name in :data:`causalprune.trajectory.names.CODECS`.

    Args:
        name: The name.
        version: Of the format of a recording that has it; None for a new recording.

    Raises:
        UsageError: There is none.
    """
    codec: Codec = CODECS.load(name)
    while version is not None and version < codec.format_version and codec.earlier is not None:
        codec = codec.earlier
    return codec


def checked_body(data: np.ndarray, source: str) -> tuple[np.ndarray, int]:
    """Split off the CRC32C at the end of (n,) uint8 data, and check it.

    Returns:
        The data before the checksum, and the checksum.

    Raises:
        CorruptError: The checksum is wrong.
    """
    body = data[: -CHECKSUM.size]
    (declared,) = CHECKSUM.unpack(data[-CHECKSUM.size :].tobytes())
    actual: int = google_crc32c.value(body)
    if actual != declared:
        raise damaged(source, expected=f"CRC32C {declared:08x}", found=f"{actual:08x}")
    return body, actual


def _load_blosc() -> Any:
    """Import Blosc with its own threads off: they finish blocks in any order, so equal data would get other bytes."""
    from numcodecs import blosc

    blosc.use_threads = False
    return blosc
