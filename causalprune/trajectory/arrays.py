"""Small Zarr arrays, held in memory as a whole: masks, step scalars, the results of fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from causalprune.base.errors import CorruptError, DataError
from causalprune.trajectory.codec import decode_chunk, encode_chunk, zarr_codecs
from causalprune.trajectory.layout import METADATA
from causalprune.trajectory.storage import Location
from causalprune.trajectory.zarr_files import REMEDY, array_document, require_document

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
