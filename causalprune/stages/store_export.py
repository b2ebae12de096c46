"""Write rows and parameters of a recording into a file that NumPy or safetensors reads."""

from __future__ import annotations

import time
from dataclasses import dataclass

from causalprune.config import StoreExportConfig
from causalprune.errors import DataError, UsageError
from causalprune.files import make_directory, remove_partials
from causalprune.locking import FileLock
from causalprune.paths import RunPaths, lock_path
from causalprune.quantities import parse_range
from causalprune.reporting import Reporter
from causalprune.stages.output import StageResult, done_already
from causalprune.store import TrajectoryStore
from causalprune.store.export import export_recording


@dataclass(frozen=True, kw_only=True)
class StoreExportResult(StageResult):
    """Result of store export.

    Attributes:
        recording: Name of the recording.
        rows: Rows written.
        columns: Columns written.
        file_bytes: Size of the file.
    """

    recording: str
    rows: int
    columns: int
    file_bytes: int


def store_export(config: StoreExportConfig, reporter: Reporter | None = None) -> StoreExportResult:
    """Export a slice of a recording.

    Raises:
        UsageError: The file is there already, or has another suffix; an unknown parameter.
        DataError: Rows that weren't recorded.
        LockedError: Another process is writing the file.
    """
    del reporter
    started = time.monotonic()
    reader = TrajectoryStore.open(config.store or RunPaths(config.run).store).recording(config.recording)
    path = config.output
    assert path is not None
    done_already(
        f"{path}",
        None,
        lambda: "something" if path.exists() else None,
        overwrite=config.overwrite and not path.is_dir(),
        expected="nothing there yet",
        found="something",
        remedy="choose another --output" if path.is_dir() else "pass --overwrite",
        error=UsageError,
    )
    start, stop = parse_range(config.rows) if config.rows else (0, None)
    if reader.num_rows == 0:
        raise DataError(f"{reader.path}", expected="at least one row", found="none", remedy="record first")
    wanted = slice(start, reader.num_rows if stop is None else stop)
    make_directory(path.parent)
    with FileLock(lock_path(path), break_lock=config.break_lock):
        remove_partials(path.parent, path.name)
        rows, columns = export_recording(reader, path, rows=wanted, parameters=config.param)
    return StoreExportResult(
        stage="store export",
        inputs={"recording": reader.digest},
        outputs={"file": str(path)},
        seconds=time.monotonic() - started,
        recording=reader.name,
        rows=rows,
        columns=columns,
        file_bytes=path.stat().st_size,
    )
