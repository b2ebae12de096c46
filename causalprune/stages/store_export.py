"""Write rows and parameters of a recording for other tools: NumPy, safetensors or Zarr."""

from __future__ import annotations

import time
from dataclasses import dataclass

from causalprune.base.locks import FileLock
from causalprune.config import StoreExportConfig
from causalprune.errors import DataError, UsageError
from causalprune.files import make_directory, remove_partials
from causalprune.paths import RunPaths, lock_path
from causalprune.quantities import parse_range
from causalprune.reporting import Reporter
from causalprune.stages.result import StageResult
from causalprune.store import TrajectoryStore
from causalprune.store.export import export_recording, format_of, is_exported
from causalprune.store.names import RECORDING_FORMATS


@dataclass(frozen=True, kw_only=True)
class StoreExportResult(StageResult):
    """Result of store export.

    Attributes:
        recording: Name of the recording.
        rows: Rows written.
        columns: Columns written.
        file_bytes: Size of the file, or of the files in the directory.
    """

    recording: str
    rows: int
    columns: int
    file_bytes: int


def store_export(config: StoreExportConfig, reporter: Reporter | None = None) -> StoreExportResult:
    """Export a slice of a recording.

    Raises:
        UsageError: The file is there already, or its name says no format; an unknown parameter.
        DataError: Rows that weren't recorded.
        LockedError: Another process is writing the file.
    """
    del reporter
    started = time.monotonic()
    reader = TrajectoryStore.open(config.store or RunPaths(config.run).store).recording(config.recording)
    path = config.output
    assert path is not None
    is_folder = RECORDING_FORMATS.load(config.format or format_of(path)).is_folder
    replaceable = is_exported(path) if is_folder else path.is_file()
    if path.exists() and not (replaceable and config.overwrite):
        remedy = "pass --overwrite" if replaceable else "choose another --output"
        raise UsageError(f"{path}", expected="nothing there yet", found="something", remedy=remedy)
    start, stop = parse_range(config.rows) if config.rows else (0, None)
    if reader.num_rows == 0:
        raise DataError(f"{reader.path}", expected="at least one row", found="none", remedy="record first")
    wanted = slice(start, reader.num_rows if stop is None else stop)
    make_directory(path.parent)
    with FileLock(lock_path(path)):
        remove_partials(path.parent, path.name)
        rows, columns = export_recording(reader, path, format=config.format, rows=wanted, parameters=config.param)
    return StoreExportResult(
        stage="store export",
        inputs={"recording": reader.digest},
        outputs={"file": str(path)},
        seconds=time.monotonic() - started,
        recording=reader.name,
        rows=rows,
        columns=columns,
        file_bytes=sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file()),
    )
