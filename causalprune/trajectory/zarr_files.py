"""The Zarr nodes of a store: their ``zarr.json``, and small arrays that are held in memory as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np

from causalprune.base.errors import CorruptError, DataError, NewerFormatError
from causalprune.trajectory.codec import Codec, decode_chunk, encode_chunk, zarr_codecs
from causalprune.trajectory.layout import METADATA
from causalprune.trajectory.schema import BlockShape
from causalprune.trajectory.storage import REMEDY, Location

FORMAT_VERSION = 1
"""Of everything in a store. A reader refuses a newer one."""

NAMESPACE = "causalprune"
"""Our attributes stand under this key; others may add their own beside it."""

LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
CHECKSUM = {"name": "crc32c"}


def canonical_bytes(value: Any) -> bytes:
    """JSON with sorted keys and no white space: what checksums of JSON are taken over."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def attributes_checksum(attributes: dict[str, Any]) -> int:
    """CRC32C of our attributes, without their own ``checksum``."""
    return google_crc32c.value(canonical_bytes({k: v for k, v in attributes.items() if k != "checksum"}))


def group_document(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a group that bears our attributes.

    Args:
        kind: ``store``, ``recording`` or ``fit``.
        content: The attributes; a format version and a checksum are added.
    """
    attributes = {"kind": kind, "format_version": FORMAT_VERSION, **content}
    attributes["checksum"] = f"{attributes_checksum(attributes):08x}"
    return {"zarr_format": 3, "node_type": "group", "attributes": {NAMESPACE: attributes}}


def plain_group_document() -> dict[str, Any]:
    """Metadata of a group that only holds others."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def array_document(
    shape: Sequence[int],
    dtype: np.dtype,
    chunk_shape: Sequence[int],
    codecs: list[dict[str, Any]],
    dimension_names: Sequence[str] | None,
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """Metadata of an array; what was never written reads as NaN where the type has one."""
    fill_value = {"f": "NaN", "b": False}.get(dtype.kind, 0)
    names = {} if dimension_names is None else {"dimension_names": list(dimension_names)}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": attributes,
        **names,
    }


def delta_document(shape: BlockShape, rows: int, codec: Codec) -> dict[str, Any]:
    """Metadata of the deltas: (rows, P_active) float32, a shard a block of rows, chunks along the columns."""
    sharding = {
        "chunk_shape": [shape.rows, shape.width],
        "codecs": codec.to_zarr(),
        "index_codecs": [LITTLE_ENDIAN, CHECKSUM],
        "index_location": "end",
    }
    return array_document(
        (rows, shape.columns),
        np.dtype(np.float32),
        (shape.rows, shape.padded_columns),
        [{"name": "sharding_indexed", "configuration": sharding}],
        ("row", "column"),
        {NAMESPACE: {"codec": codec.name, "mantissa_bits": codec.mantissa_bits}},
    )


def read_document(file: Location, node_type: str) -> dict[str, Any]:
    """Read a ``zarr.json``.

    Raises:
        CorruptError: Missing, or not Zarr v3 metadata of that kind of node.
        StorageError: The file system refused.
    """
    try:
        document = file.read_json()
    except DataError as error:
        raise CorruptError(f"{file}", expected="metadata of a Zarr node", found=error.found, remedy=REMEDY) from error
    if not isinstance(document, dict) or document.get("zarr_format") != 3 or document.get("node_type") != node_type:
        raise CorruptError(f"{file}", expected=f"metadata of a Zarr v3 {node_type}", found="other", remedy=REMEDY)
    return document


def read_attributes(file: Location, kind: str) -> dict[str, Any]:
    """Read our attributes of a group.

    Raises:
        CorruptError: Missing, damaged, of another kind or of a newer format.
    """
    document = read_document(file, "group")
    found = document.get("attributes")
    attributes = found.get(NAMESPACE) if isinstance(found, dict) else None
    if not isinstance(attributes, dict) or attributes.get("kind") != kind:
        raise CorruptError(f"{file}", expected=f"attributes of a {kind} of causalprune", found="none", remedy=REMEDY)
    version = attributes.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{file}",
            expected=f"format version {FORMAT_VERSION} or older",
            found=f"{version}",
            remedy="update causalprune",
        )
    try:
        actual = f"{attributes_checksum(attributes):08x}"
    except ValueError as error:
        raise CorruptError(f"{file}", expected="finite numbers", found=str(error)[:80], remedy=REMEDY) from error
    declared = attributes.get("checksum")
    if declared != actual or type(version) is not int or version < 1:
        raise CorruptError(f"{file}", expected=f"checksum {actual}", found=f"{declared!r}"[:80], remedy=REMEDY)
    return attributes


def require_document(file: Location, expected: dict[str, Any]) -> None:
    """Check that an array's ``zarr.json`` describes the array that we know must be there.

    Raises:
        CorruptError: Any member but ``attributes`` differs.
    """
    found = read_document(file, "array")
    for key in sorted((set(found) | set(expected)) - {"attributes"}):
        difference = _first_difference(expected.get(key), found.get(key), key)
        if difference is not None:
            where, wanted, other = difference
            raise CorruptError(
                f"{file}",
                expected=f"{where} {json.dumps(wanted)[:80]}",
                found=json.dumps(other)[:80],
                remedy="restore the file from a copy; a store of an earlier version must be recorded again",
            )


def _first_difference(expected: Any, found: Any, where: str) -> tuple[str, Any, Any] | None:
    """Where two JSON values first differ, such as ``codecs.0.name``, and what each says there."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        pairs = [(str(key), expected[key], found[key]) for key in sorted(expected)]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(str(number), *pair) for number, pair in enumerate(zip(expected, found, strict=True))]
    else:
        return None if expected == found else (where, expected, found)
    differences = (_first_difference(a, b, f"{where}.{name}") for name, a, b in pairs)
    return next((difference for difference in differences if difference is not None), None)


MAX_CHUNK_BYTES = 2**28
MAX_ARRAY_BYTES = 2**36
DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float32", "float64")

_COMPRESSOR, _LEVEL = "zstd", 1
_OVERHEAD = 2**16


def write_array(folder: Location, values: np.ndarray, dimension_names: Sequence[str] | None = None) -> None:
    """Write an array into a new folder; the caller makes the whole atomic.

    Args:
        folder: The array's node, which doesn't exist yet.
        values: Of one of :data:`DTYPES`, at least one-dimensional.
        dimension_names: One a dimension, or none at all.
    """
    folder.make_folder()
    values = np.ascontiguousarray(values)
    chunk_shape = _chunk_shape(values.shape, values.dtype)
    for number, start in enumerate(range(0, len(values) if values.size else 0, chunk_shape[0])):
        chunk = np.zeros(chunk_shape, values.dtype)
        part = values[start : start + chunk_shape[0]]
        chunk[: len(part)] = part
        (folder / _key(number, values.ndim)).write(b"".join(encode_chunk(chunk, _COMPRESSOR, _LEVEL)))
    (folder / METADATA).write_json(_document(values.shape, values.dtype, dimension_names))


def read_array(
    folder: Location, shape: Sequence[int], dtype: np.dtype, dimension_names: Sequence[str] | None = None
) -> np.ndarray:
    """Read what :func:`write_array` wrote.

    Raises:
        CorruptError: A file is missing or damaged, or the array isn't of that shape and type.
    """
    require_document(folder / METADATA, _document(shape, dtype, dimension_names))
    chunk_shape = _chunk_shape(shape, dtype)
    values = np.empty(tuple(shape), dtype)
    chunk = np.empty(chunk_shape, dtype)
    for number, start in enumerate(range(0, len(values) if values.size else 0, chunk_shape[0])):
        file = folder / _key(number, values.ndim)
        try:
            encoded = np.frombuffer(file.read(chunk.nbytes + _OVERHEAD), np.uint8)
        except DataError as error:
            raise CorruptError(f"{file}", expected="a chunk", found=error.found, remedy=REMEDY) from error
        decode_chunk(encoded, chunk, f"{file}")
        part = values[start : start + chunk_shape[0]]
        part[...] = chunk[: len(part)]
    return values


def _document(shape: Sequence[int], dtype: np.dtype, dimension_names: Sequence[str] | None) -> dict[str, Any]:
    codecs = zarr_codecs(dtype.itemsize, _COMPRESSOR, _LEVEL)
    return array_document(shape, dtype, _chunk_shape(shape, dtype), codecs, dimension_names, {})


def _chunk_shape(shape: Sequence[int], dtype: np.dtype) -> tuple[int, ...]:
    """Whole rows along the first dimension, as many as a chunk may hold."""
    row_bytes = dtype.itemsize * max(1, math.prod(shape[1:]))
    return (max(1, min(shape[0], MAX_CHUNK_BYTES // row_bytes)), *(max(1, n) for n in shape[1:]))


def _key(number: int, dimensions: int) -> str:
    return ".".join(["c", str(number), *["0"] * (dimensions - 1)])
