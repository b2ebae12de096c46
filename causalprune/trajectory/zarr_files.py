"""The ``zarr.json`` of groups and arrays: what we write there, and the check that it still says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np

from causalprune.base.errors import CorruptError, DataError, NewerFormatError
from causalprune.trajectory.blocks import BlockShape
from causalprune.trajectory.codec import Codec
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
