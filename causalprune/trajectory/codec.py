"""How deltas are rounded and compressed, by codecs of the Zarr v3 specification."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Literal

import google_crc32c
import numpy as np

from causalprune.base.errors import CorruptError
from causalprune.trajectory.names import CODECS

_BLOSC_HEADER = struct.Struct("<BBBBIII")
_CHECKSUM = struct.Struct("<I")
_MANTISSA_BITS = 23

Shuffle = Literal["shuffle", "bitshuffle"]


@dataclass(frozen=True)
class Codec:
    """One way to store float32 deltas; one with another compressor than Blosc's overrides the last three methods.

    Attributes:
        name: Its name in :data:`causalprune.trajectory.names.CODECS`, which stores have in their metadata.
        mantissa_bits: Explicit mantissa bits kept of float32's 23: the relative error is at most 2^-(bits + 1).
        compressor: Blosc's inner compressor.
        level: Its compression level.
        shuffle: What Blosc brings together first: equal bits of all values, or equal bytes.
        block_bytes: Blosc's block; 0 leaves the choice to Blosc.
    """

    name: str
    mantissa_bits: int
    compressor: str
    level: int
    shuffle: Shuffle = "bitshuffle"
    block_bytes: int = 0

    def round(self, values: np.ndarray, out: np.ndarray) -> None:
        """Round float32 values to the kept mantissa bits: to nearest, ties away from zero.

        Rounding what is rounded changes nothing, so that a block that is read back and written again keeps its bits.

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
        """Compress a chunk of rounded values, as :func:`encode_chunk` does."""
        return encode_chunk(chunk, self.compressor, self.level, self.shuffle, self.block_bytes)

    def decode(self, encoded: np.ndarray, out: np.ndarray, source: str) -> None:
        """Check and decompress what :meth:`encode` gave, as :func:`decode_chunk` does."""
        decode_chunk(encoded, out, source)

    def to_zarr(self) -> list[dict[str, Any]]:
        """The codecs of a chunk in Zarr's metadata."""
        return zarr_codecs(4, self.compressor, self.level, self.shuffle, self.block_bytes)


# LZ4 only finds repetition, and needs the bits apart. Zstandard also gives frequent bytes shorter codes, best where
# exponents stay whole; blocks larger than Blosc would choose are both faster and smaller.
EXACT = Codec("exact", mantissa_bits=23, compressor="lz4", level=5)
BALANCED = Codec("balanced", mantissa_bits=10, compressor="lz4", level=5)
SMALL = Codec("small", mantissa_bits=7, compressor="zstd", level=3, shuffle="shuffle", block_bytes=2**20)


def find_codec(name: str) -> Codec:
    """The codec of that name in :data:`causalprune.trajectory.names.CODECS`.

    Raises:
        UsageError: There is none.
    """
    codec: Codec = CODECS.load(name)
    return codec


def encode_chunk(
    chunk: np.ndarray, compressor: str, level: int, shuffle: Shuffle = "bitshuffle", block_bytes: int = 0
) -> list[bytes]:
    """Compress a chunk with Blosc.

    Args:
        chunk: C-contiguous, of a numeric type.
        compressor: Blosc's inner compressor.
        level: Its compression level.
        shuffle: Whether equal bits or equal bytes of all values are brought together first.
        block_bytes: Blosc's block; 0 leaves the choice to Blosc.

    Returns:
        Two parts, the second the CRC32C of the first.
    """
    blosc = _load_blosc()
    filters = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
    body = blosc.compress(chunk, compressor.encode(), level, filters[shuffle], block_bytes)
    return [body, _CHECKSUM.pack(google_crc32c.value(body))]


def zarr_codecs(
    itemsize: int, compressor: str, level: int, shuffle: Shuffle = "bitshuffle", block_bytes: int = 0
) -> list[dict[str, Any]]:
    """What :func:`encode_chunk` does, in Zarr's metadata."""
    configuration = {
        "cname": compressor,
        "clevel": level,
        "shuffle": shuffle,
        "typesize": itemsize,
        "blocksize": block_bytes,
    }
    endian = {"name": "bytes", "configuration": {"endian": "little"}}
    return [endian, {"name": "blosc", "configuration": configuration}, {"name": "crc32c"}]


def decode_chunk(encoded: np.ndarray, out: np.ndarray, source: str) -> None:
    """Check and decompress one chunk.

    Args:
        encoded: (n,) uint8, Blosc's bytes and after them their CRC32C.
        out: C-contiguous; it takes exactly the decoded bytes.
        source: File and chunk, for the error message.

    Raises:
        CorruptError: The checksum is wrong, or the sizes aren't those declared.
    """
    blosc = _load_blosc()

    remedy = "restore the file from a copy, or record again"
    if len(encoded) < _BLOSC_HEADER.size + _CHECKSUM.size:
        raise CorruptError(source, expected="a compressed chunk", found=f"{len(encoded)} bytes", remedy=remedy)
    body = encoded[: -_CHECKSUM.size]
    (declared,) = _CHECKSUM.unpack(encoded[-_CHECKSUM.size :].tobytes())
    actual = google_crc32c.value(body)
    if actual != declared:
        raise CorruptError(source, expected=f"CRC32C {declared:08x}", found=f"{actual:08x}", remedy=remedy)
    size, _, length = _BLOSC_HEADER.unpack(body[: _BLOSC_HEADER.size].tobytes())[-3:]
    if size != out.nbytes or length != len(body):
        raise CorruptError(
            source,
            expected=f"{out.nbytes} bytes compressed to {len(body)}",
            found=f"{size} compressed to {length}",
            remedy=remedy,
        )
    try:
        blosc.decompress(body, out)
    except (RuntimeError, ValueError) as error:
        raise CorruptError(source, expected="a compressed chunk", found=str(error)[:80], remedy=remedy) from error


def _load_blosc() -> Any:
    """Import Blosc with its own threads off: they finish blocks in any order, and equal data would get other bytes."""
    from numcodecs import blosc

    blosc.use_threads = False
    return blosc
