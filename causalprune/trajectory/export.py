"""Slices of a recording for other tools: NumPy, safetensors or Zarr; streamed, with a block of rows in memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from causalprune.base.errors import CausalpruneError, DataError, UsageError, storage_errors
from causalprune.base.files import atomic_file, sync_tree, temporary_beside
from causalprune.trajectory.names import RECORDING_FORMATS
from causalprune.trajectory.reader import RecordingReader, recut
from causalprune.trajectory.steps import STEP_FIELDS
from causalprune.trajectory.storage import locate
from causalprune.trajectory.storage.location import Location
from causalprune.trajectory.zarr_files import METADATA, group_document, read_attributes

_KIND = "slice"

_SAFETENSORS_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}


@dataclass(frozen=True)
class Slice:
    """Rows of a recording, of all its columns or of some parameters.

    Attributes:
        reader: The recording.
        rows: Start and stop.
        ranges: Start and stop of the columns of each part.
        parameters: What the columns are: ``name`` and ``shape`` of each parameter, ``offset``, its position in the flat
            vector of prunable parameters, and ``columns``, start and stop of its columns in the slice.
    """

    reader: RecordingReader
    rows: slice
    ranges: Sequence[slice]
    parameters: list[dict[str, Any]]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """``column`` (columns,) and the scalars of the rows, (rows,) each."""
        column = np.concatenate([self.reader.column_index[r] for r in self.ranges])
        return {"column": column} | {name: self.reader.steps[name][self.rows] for name in STEP_FIELDS}

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.stop - self.rows.start, len(self.arrays["column"])

    def pieces(self) -> Iterator[np.ndarray]:
        """The deltas, a block of rows at a time, C-contiguous."""
        start, height = self.rows.start, self.reader.block_rows
        while start < self.rows.stop:
            stop = min(start + height - start % height, self.rows.stop)
            parts = [self.reader.read(slice(start, stop), columns) for columns in self.ranges]
            yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
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
    """Write rows of a recording, of all its columns or of some parameters.

    What is written holds ``delta`` (rows, columns) float32, the signed Δθ; ``column`` (columns,) int64, the position of
    each column in the flat vector of prunable parameters; and the scalars of the rows, (rows,) each, named as in
    :class:`Steps <causalprune.trajectory.steps.Steps>`.

    Args:
        reader: The recording.
        path: Where to; written atomically. In the format ``zarr`` it is a directory.
        format: A name of :data:`~causalprune.trajectory.names.RECORDING_FORMATS`; the path's ending when left out.
        rows: Start and stop; all when left out.
        parameters: Names such as ``fc1.weight``; all when left out.

    Returns:
        Rows and columns written.

    Raises:
        UsageError: An unknown format or suffix, or a parameter that isn't there.
        DataError: Rows that weren't recorded, or no column.
        CorruptError: A shard is missing or damaged.
        StorageError: The file system refused.
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
    """The format that a path's ending names.

    Raises:
        UsageError: It names none.
    """
    name = path.suffix.removeprefix(".")
    if name not in RECORDING_FORMATS:
        *others, last = (f".{name}" for name in RECORDING_FORMATS)
        raise UsageError(f"{path}", expected=f"a name ending in {', '.join(others)} or {last}", found=repr(path.suffix))
    return name


def is_exported(path: Path) -> bool:
    """Whether a directory is a slice that :func:`write_zarr` wrote, whole."""
    try:
        read_attributes(locate(path) / METADATA, _KIND)
    except CausalpruneError:
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
    # Uncompressed, as np.savez does it; a fixed date, so that equal recordings give equal files.
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, values in chosen.arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                npy.write_array(member, values, allow_pickle=False)
        with archive.open(zipfile.ZipInfo("delta.npy"), "w", force_zip64=True) as member:
            npy.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": chosen.shape})
            for piece in chosen.pieces():
                member.write(piece.data)


def write_safetensors(chosen: Slice, path: Path) -> None:
    """Write what ``safetensors.numpy.load_file`` reads."""
    entries: dict[str, object] = {}
    position = 0
    for name, dtype, dimensions in [
        *((name, values.dtype.name, values.shape) for name, values in chosen.arrays.items()),
        ("delta", "float32", chosen.shape),
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
    with atomic_file(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for values in chosen.arrays.values():
            file.write(np.ascontiguousarray(values).data)
        for piece in chosen.pieces():
            file.write(piece.data)


def write_zarr(chosen: Slice, path: Path) -> None:
    """Write a group that ``zarr.open`` reads: a directory, which replaces an earlier one as a whole.

    Its attributes, under ``causalprune``, name the recording, the rows and the parameters.
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
                # What zarr leaves out or somebody loses mustn't read as steps of zero.
                fill_value=float("nan"),
                dimension_names=("row", "column"),
            )
            for start, block in recut(_placed(chosen.pieces()), reader.block_rows, height):
                delta[start : start + len(block)] = block
        sync_tree(temporary)

    locate(path).replace(locate(temporary_beside(path)), fill)


def _placed(pieces: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive blocks, each with the number of its first row."""
    start = 0
    for piece in pieces:
        yield start, piece
        start += len(piece)


NPZ = RecordingFormat(write_npz)
SAFETENSORS = RecordingFormat(write_safetensors)
ZARR = RecordingFormat(write_zarr, is_folder=True)
