"""Slices of a recording as one file that NumPy or safetensors reads; streamed, a block of rows in memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from causalprune.errors import DataError, UsageError
from causalprune.files import atomic_file
from causalprune.store.reader import RecordingReader
from causalprune.store.steps import STEP_FIELDS

SUFFIXES = (".npz", ".safetensors")

_SAFETENSORS_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}


def export_recording(
    reader: RecordingReader, path: Path, *, rows: slice | None = None, parameters: Sequence[str] = ()
) -> tuple[int, int]:
    """Write rows of a recording, of all its columns or of some parameters.

    The file holds ``delta`` (rows, columns) float32, the signed Δθ; ``column`` (columns,) int64, each column's position
    in the flat vector of prunable parameters; and the scalars of the rows, (rows,) each, named as in :class:`Steps
    <causalprune.store.steps.Steps>`.

    Args:
        reader: The recording.
        path: Ends in ``.npz`` or ``.safetensors``; written atomically.
        rows: Start and stop; all when left out.
        parameters: Names such as ``fc1.weight``; all when left out.

    Returns:
        Rows and columns written.

    Raises:
        UsageError: Another suffix, or a parameter that isn't there.
        DataError: Rows that weren't recorded, or no column.
        CorruptError: A shard is missing or damaged.
        StorageError: The file system refused.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}", expected=f"a name ending in {' or '.join(SUFFIXES)}", found=repr(path.suffix))
    rows = rows or slice(0, reader.num_rows)
    if not 0 <= rows.start < rows.stop <= reader.num_rows:
        raise DataError(
            f"rows {rows.start}:{rows.stop} of {reader.path}",
            expected=f"a range within 0:{reader.num_rows}",
            found="another",
            remedy="name rows that were recorded",
        )
    ranges = [reader.columns_of(name) for name in parameters] or [slice(0, reader.num_columns)]
    column = np.concatenate([reader.column_index[r] for r in ranges])
    if not len(column):
        raise DataError(f"{reader.path}", expected="a column to export", found="pruned parameters only")
    arrays = {"column": column} | {name: reader.steps[name][rows] for name in STEP_FIELDS}
    height = rows.stop - rows.start
    write = _write_npz if path.suffix == ".npz" else _write_safetensors
    with atomic_file(path) as file:
        write(file, arrays, (height, len(column)), _pieces(reader, rows, ranges))
    return height, len(column)


def _pieces(reader: RecordingReader, rows: slice, ranges: Sequence[slice]) -> Iterator[np.ndarray]:
    """The deltas, a block of rows at a time, C-contiguous."""
    start = rows.start
    while start < rows.stop:
        stop = min(start + reader.block_rows - start % reader.block_rows, rows.stop)
        parts = [reader.read(slice(start, stop), columns) for columns in ranges]
        yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        start = stop


def _write_npz(
    file: BinaryIO, arrays: dict[str, np.ndarray], shape: tuple[int, int], pieces: Iterator[np.ndarray]
) -> None:
    # Uncompressed, as np.savez does it; a fixed date, so that equal recordings give equal files.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                npy.write_array(member, values, allow_pickle=False)
        with archive.open(zipfile.ZipInfo("delta.npy"), "w", force_zip64=True) as member:
            npy.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for piece in pieces:
                member.write(piece.data)


def _write_safetensors(
    file: BinaryIO, arrays: dict[str, np.ndarray], shape: tuple[int, int], pieces: Iterator[np.ndarray]
) -> None:
    entries: dict[str, object] = {}
    position = 0
    for name, dtype, dimensions in [
        *((name, values.dtype.name, values.shape) for name, values in arrays.items()),
        ("delta", "float32", shape),
    ]:
        size = int(np.prod(dimensions)) * np.dtype(dtype).itemsize
        entries[name] = {
            "dtype": _SAFETENSORS_DTYPES[dtype],
            "shape": list(dimensions),
            "data_offsets": [position, position + size],
        }
        position += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    for values in arrays.values():
        file.write(np.ascontiguousarray(values).data)
    for piece in pieces:
        file.write(piece.data)
