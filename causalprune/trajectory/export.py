"""Exports slices of a recording to NumPy, safetensors or Zarr, with one block of rows in memory at a time."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from causalprune.base.errors import DAMAGE, DataError, UsageError, storage_errors
from causalprune.base.files import atomic_file, sync_tree, temporary_beside
from causalprune.trajectory.names import RECORDING_FORMATS
from causalprune.trajectory.reader import RecordingReader, recut
from causalprune.trajectory.storage import locate
from causalprune.trajectory.storage.location import Location
from causalprune.trajectory.zarr_files import METADATA, group_document, read_attributes

_KIND = "slice"

_SAFETENSORS_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}


@dataclass(frozen=True)
class Slice:
    """Some rows of a recording, of all columns or of some parameters.

    Attributes:
        reader: The recording.
        rows: Start and stop.
        ranges: Start and stop of each range of columns.
        parameters: For each parameter its ``name`` and ``shape``, its ``offset`` in the flat vector of prunable
            parameters, and ``columns``, start and stop of its columns in the slice.
    """

    reader: RecordingReader
    rows: slice
    ranges: Sequence[slice]
    parameters: list[dict[str, Any]]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """``column`` (columns,), and the scalars of the rows, each (rows,)."""
        column, steps = np.concatenate([self.reader.column_index[r] for r in self.ranges]), self.reader.steps
        return {"column": column} | {name: steps[name][self.rows] for name in steps.names}

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.stop - self.rows.start, len(self.arrays["column"])

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The deltas in C-contiguous blocks of rows, each with its first row within the slice."""
        start, height = self.rows.start, self.reader.block_rows
        while start < self.rows.stop:
            stop = min(start + height - start % height, self.rows.stop)
            parts = [self.reader.read(slice(start, stop), columns) for columns in self.ranges]
            yield start - self.rows.start, parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
            start = stop


@dataclass(frozen=True)
class RecordingFormat:
    """How a slice of a recording is written.

    Attributes:
        write: Writes a slice to a path, atomically.
        is_folder: Whether a directory is written, rather than a file.
    """

    write: Callable[[Slice, Path], None]
    is_folder: bool = False


def export_recording(
    reader: RecordingReader,
    path: Path,
    *,
    format: str | None = None,
    rows: slice | None = None,
    parameters: Sequence[str] = (),
) -> tuple[int, int]:
    """Write rows of a recording, of all columns or of some parameters.

    The output contains ``delta`` (rows, columns) float32, the signed Δθ; ``column`` (columns,) int64, the position of
    each column in the flat vector of prunable parameters; and the scalars of the rows, each (rows,), named as in
    :class:`Steps <causalprune.trajectory.steps.Steps>`.

    Args:
        reader: The recording.
        path: The output, written atomically; in the format ``zarr`` a directory.
        format: A name of :data:`~causalprune.trajectory.names.RECORDING_FORMATS`; by default the suffix of the path.
        rows: Start and stop; all by default.
        parameters: Names such as ``fc1.weight``; all by default.

    Returns:
        Rows and columns written.

    Raises:
        UsageError: An unknown format, suffix or parameter.
        DataError: Rows that weren't recorded, or no column.
        CorruptError: A shard is missing or damaged.
        StorageError: Storage refused.
    """
    recording_format: RecordingFormat = RECORDING_FORMATS.load(format or format_of(path))
    rows = rows or slice(0, reader.num_rows)
    if not 0 <= rows.start < rows.stop <= reader.num_rows:
        raise DataError(
            f"rows {rows.start}:{rows.stop} of {reader.path}",
            expected=f"a range within 0:{reader.num_rows}",
            found="another",
            remedy="name rows that were recorded",
        )
    ranges = [reader.columns_of(name) for name in parameters] or [slice(0, reader.num_columns)]
    chosen = Slice(reader, rows, ranges, _parameters(reader, parameters or [entry.name for entry in reader.index]))
    if not chosen.shape[1]:
        raise DataError(f"{reader.path}", expected="a column to export", found="pruned parameters only")
    recording_format.write(chosen, path)
    return chosen.shape


def format_of(path: Path) -> str:
    """The format that the suffix of a path names.

    Raises:
        UsageError: It names none.
    """
    name = path.suffix.removeprefix(".")
    if name not in RECORDING_FORMATS:
        *others, last = (f".{name}" for name in RECORDING_FORMATS)
        raise UsageError(f"{path}", expected=f"a name ending in {', '.join(others)} or {last}", found=repr(path.suffix))
    return name


def is_exported(path: Path) -> bool:
    """Whether a directory is a complete slice that :func:`write_zarr` wrote."""
    try:
        read_attributes(locate(path) / METADATA, _KIND)
    except DAMAGE:
        return False
    return True


def _parameters(reader: RecordingReader, names: Sequence[str]) -> list[dict[str, Any]]:
    found, start = [], 0
    for name in names:
        entry, columns = reader.index[name], reader.columns_of(name)
        stop = start + columns.stop - columns.start
        found.append({"name": name, "shape": list(entry.shape), "offset": entry.offset, "columns": [start, stop]})
        start = stop
    return found


def write_npz(chosen: Slice, path: Path) -> None:
    """Write what :func:`numpy.load` reads."""
    # Uncompressed, like np.savez, and with a fixed date, so that equal recordings give equal files.
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, values in chosen.arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                npy.write_array(member, values, allow_pickle=False)
        with archive.open(zipfile.ZipInfo("delta.npy"), "w", force_zip64=True) as member:
            npy.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": chosen.shape})
            for _, block in chosen.blocks():
                member.write(block.data)


def write_safetensors(chosen: Slice, path: Path) -> None:
    """Write what ``safetensors.numpy.load_file`` reads."""
    tensors = {name: (values.dtype.name, values.shape, values.nbytes) for name, values in chosen.arrays.items()}
    tensors["delta"] = ("float32", chosen.shape, 4 * math.prod(chosen.shape))
    entries: dict[str, object] = {}
    end = 0
    for name, (dtype, shape, size) in tensors.items():
        begin, end = end, end + size
        entries[name] = {"dtype": _SAFETENSORS_DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with atomic_file(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for values in chosen.arrays.values():
            file.write(np.ascontiguousarray(values).data)
        for _, block in chosen.blocks():
            file.write(block.data)


def write_zarr(chosen: Slice, path: Path) -> None:
    """Write a group that ``zarr.open`` reads: a directory, which replaces an earlier one as a whole.

    Its attributes, under ``causalprune``, are the recording, the rows and the parameters.
    """
    import zarr

    reader, (height, width) = chosen.reader, chosen.shape
    content = {
        "recording": reader.name,
        "digest": reader.digest,
        "rows": [chosen.rows.start, chosen.rows.stop],
        "parameters": chosen.parameters,
    }

    def fill(folder: Location) -> None:
        temporary = Path(f"{folder}")
        with storage_errors(path):
            group = zarr.create_group(temporary, attributes=group_document(_KIND, content)["attributes"])
            for name, values in chosen.arrays.items():
                group.create_array(name, data=values, dimension_names=("column" if name == "column" else "row",))
            delta = group.create_array(
                "delta",
                shape=chosen.shape,
                dtype="float32",
                chunks=(min(reader.block_rows, height), min(reader.block_width, width)),
                # Chunks that zarr leaves out or that get lost must not read as steps of zero.
                fill_value=float("nan"),
                dimension_names=("row", "column"),
            )
            for start, block in recut(chosen.blocks(), reader.block_rows, height):
                delta[start : start + len(block)] = block
        sync_tree(temporary)

    locate(path).replace(locate(temporary_beside(path)), fill)


NPZ = RecordingFormat(write_npz)
SAFETENSORS = RecordingFormat(write_safetensors)
ZARR = RecordingFormat(write_zarr, is_folder=True)
