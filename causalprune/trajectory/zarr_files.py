"""The Zarr nodes of a store: their ``zarr.json``, and small arrays that fit in memory as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np

from causalprune.base.errors import CorruptError, NewerFormatError
from causalprune.trajectory.codec import CRC32C, LITTLE_ENDIAN, Codec
from causalprune.trajectory.schema import MAX_CHUNK_BYTES, RecordingSchema
from causalprune.trajectory.storage.location import Location, damaged

METADATA = "zarr.json"
"""The file that describes a Zarr v3 group or array."""

FORMAT_VERSIONS = {"store": 1, "recording": 5, "fit": 1, "layer-statistics": 1, "slice": 1}
"""Newest version of each kind of group; a reader refuses newer ones, and reads all older ones."""

NAMESPACE = "causalprune"
"""The key of our attributes; other tools may add theirs beside it."""


def canonical_bytes(value: Any) -> bytes:
    """JSON with sorted keys and no white space: what checksums of JSON are computed from."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def attributes_checksum(attributes: dict[str, Any]) -> int:
    """CRC32C of our attributes, without their own ``checksum``."""
    checksum: int = google_crc32c.value(canonical_bytes({k: v for k, v in attributes.items() if k != "checksum"}))
    return checksum


def group_document(kind: str, content: dict[str, Any], *, version: int | None = None) -> dict[str, Any]:
    """Metadata of a group with our attributes.

    Args:
        kind: One of :data:`FORMAT_VERSIONS`.
        content: The attributes; a format version and a checksum are added.
        version: The oldest version that has everything that the group has; the newest by default.
    """
    attributes = {"kind": kind, "format_version": version or FORMAT_VERSIONS[kind], **content}
    attributes["checksum"] = f"{attributes_checksum(attributes):08x}"
    return {"zarr_format": 3, "node_type": "group", "attributes": {NAMESPACE: attributes}}


def array_document(
    shape: Sequence[int],
    dtype: np.dtype,
    chunk_shape: Sequence[int],
    codecs: list[dict[str, Any]],
    dimension_names: Sequence[str] | None,
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """Metadata of an array; missing values read as NaN if the type has one."""
    names = {} if dimension_names is None else {"dimension_names": list(dimension_names)}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": {"f": "NaN", "b": False}.get(dtype.kind, 0),
        "codecs": codecs,
        "attributes": attributes,
        **names,
    }


def delta_document(schema: RecordingSchema, rows: int) -> dict[str, Any]:
    """Metadata of the deltas: (rows, P_active) float32, one shard per block of rows, chunked along the columns."""
    shape, codec = schema.shape, schema.codec
    sharding = {
        "chunk_shape": [shape.rows, shape.width],
        "codecs": codec.to_zarr(),
        "index_codecs": [LITTLE_ENDIAN, CRC32C],
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
        StorageError: Storage refused.
    """
    document = file.read_json("metadata of a Zarr node")
    if not isinstance(document, dict) or document.get("zarr_format") != 3 or document.get("node_type") != node_type:
        raise damaged(file, expected=f"metadata of a Zarr v3 {node_type}", found="other")
    return document


def read_attributes(file: Location, kind: str) -> dict[str, Any]:
    """Read our attributes from a group.

    Raises:
        CorruptError: Missing, damaged, of another kind or of a newer format.
    """
    document = read_document(file, "group")
    found = document.get("attributes")
    attributes = found.get(NAMESPACE) if isinstance(found, dict) else None
    if not isinstance(attributes, dict) or attributes.get("kind") != kind:
        raise damaged(file, expected=f"attributes of a {kind} of causalprune", found="none")
    version = attributes.get("format_version")
    if type(version) is int and version > FORMAT_VERSIONS[kind]:
        raise NewerFormatError(
            f"{file}",
            expected=f"format version {FORMAT_VERSIONS[kind]} or older",
            found=f"{version}",
            remedy="update causalprune",
        )
    try:
        actual = f"{attributes_checksum(attributes):08x}"
    except ValueError as error:
        raise damaged(file, expected="finite numbers", found=f"{error}"[:80]) from error
    declared = attributes.get("checksum")
    if declared != actual or type(version) is not int or version < 1:
        raise damaged(file, expected=f"checksum {actual}", found=f"{declared!r}"[:80])
    return attributes


def require_document(file: Location, expected: dict[str, Any]) -> None:
    """Check that an array's ``zarr.json`` describes the expected array.

    Raises:
        CorruptError: Any member other than ``attributes`` differs.
    """
    found = read_document(file, "array")
    for key in sorted((set(found) | set(expected)) - {"attributes"}):
        difference = _first_difference(expected.get(key), found.get(key), key)
        if difference:
            where, wanted, other = difference
            raise CorruptError(
                f"{file}",
                expected=f"{where} {json.dumps(wanted)[:80]}",
                found=json.dumps(other)[:80],
                remedy="restore the file from a copy; a store of an earlier version must be recorded again",
            )


def _first_difference(expected: Any, found: Any, where: str) -> tuple[str, Any, Any] | None:
    """Where two JSON values first differ, such as ``codecs.0.name``, and both values there."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        pairs = [(str(key), expected[key], found[key]) for key in sorted(expected)]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(str(number), *pair) for number, pair in enumerate(zip(expected, found, strict=True))]
    else:
        return None if expected == found else (where, expected, found)
    differences = (_first_difference(a, b, f"{where}.{name}") for name, a, b in pairs)
    return next(filter(None, differences), None)


MAX_ARRAY_BYTES = 2**36
DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float32", "float64")

_CODEC = Codec("", mantissa_bits=23, compressor="zstd", level=1)
_OVERHEAD = 2**16


def write_array(folder: Location, values: np.ndarray, dimension_names: Sequence[str] | None = None) -> None:
    """Write an array into a new folder; the caller makes the whole atomic.

    Args:
        folder: The array's folder, which doesn't exist yet.
        values: Of one of :data:`DTYPES`, at least one-dimensional.
        dimension_names: One per dimension, or none at all.
    """
    folder.make_folder()
    values = np.ascontiguousarray(values)
    chunk_shape = _chunk_shape(values.shape, values.dtype)
    for number, start in enumerate(range(0, len(values) if values.size else 0, chunk_shape[0])):
        chunk = np.zeros(chunk_shape, values.dtype)
        part = values[start : start + chunk_shape[0]]
        chunk[: len(part)] = part
        (folder / _key(number, values.ndim)).write(b"".join(_CODEC.encode(chunk)))
    (folder / METADATA).write_json(_document(values.shape, values.dtype, dimension_names))


def read_array(
    folder: Location, shape: Sequence[int], dtype: np.dtype, dimension_names: Sequence[str] | None = None
) -> np.ndarray:
    """Read what :func:`write_array` wrote.

    Raises:
        CorruptError: A file is missing or damaged, or the array has another shape or type.
    """
    require_document(folder / METADATA, _document(shape, dtype, dimension_names))
    chunk_shape = _chunk_shape(shape, dtype)
    values = np.empty(tuple(shape), dtype)
    chunk = np.empty(chunk_shape, dtype)
    for number, start in enumerate(range(0, len(values) if values.size else 0, chunk_shape[0])):
        file = folder / _key(number, values.ndim)
        encoded = np.frombuffer(file.read(chunk.nbytes + _OVERHEAD, "a chunk"), np.uint8)
        _CODEC.decode(encoded, chunk, f"{file}")
        part = values[start : start + chunk_shape[0]]
        part[...] = chunk[: len(part)]
    return values


def _document(shape: Sequence[int], dtype: np.dtype, dimension_names: Sequence[str] | None) -> dict[str, Any]:
    codecs = _CODEC.to_zarr(dtype.itemsize)
    return array_document(shape, dtype, _chunk_shape(shape, dtype), codecs, dimension_names, {})


def _chunk_shape(shape: Sequence[int], dtype: np.dtype) -> tuple[int, ...]:
    """As many whole rows along the first dimension as fit into a chunk."""
    row_bytes = dtype.itemsize * max(1, math.prod(shape[1:]))
    return (max(1, min(shape[0], MAX_CHUNK_BYTES // row_bytes)), *(max(1, n) for n in shape[1:]))


def _key(number: int, dimensions: int) -> str:
    return ".".join(["c", str(number), *["0"] * (dimensions - 1)])
