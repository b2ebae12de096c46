"""``store verify``, ``store export``, ``store merge``, ``store compact``: commands for a whole trajectory store."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from causalprune.base.errors import DAMAGE, CorruptError, DataError, UsageError
from causalprune.base.files import make_directory, remove_partials
from causalprune.base.locks import FileLock
from causalprune.base.paths import RunPaths, lock_path, parse_place, real_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.base.units import parse_range
from causalprune.commands._output import StageResult, Work, done_already
from causalprune.commands._stores import open_store
from causalprune.config.store import StoreCompactConfig, StoreExportConfig, StoreMergeConfig, StoreVerifyConfig
from causalprune.trajectory import RecordingReader, Store
from causalprune.trajectory.export import export_recording, format_of, is_exported
from causalprune.trajectory.maintenance import Merge, recode
from causalprune.trajectory.names import RECORDING_FORMATS

_SHOWN = 10
"""Most problems that are named one by one."""


@dataclass(frozen=True, kw_only=True)
class StoreVerifyResult(StageResult):
    """Result of store verify.

    Attributes:
        path: The store.
        recordings: Recordings that were read.
        rows: Their rows together.
        stored_bytes: Bytes of their shards.
    """

    path: str
    recordings: int
    rows: int
    stored_bytes: int


def store_verify(config: StoreVerifyConfig, reporter: Reporter = SILENT) -> StoreVerifyResult:
    """Compare each byte of a store with the checksums recorded for it.

    Raises:
        CorruptError: Something is missing or damaged; each file is named.
    """
    work = Work(stage="store verify", config=config)
    path = config.store or RunPaths(config.run).store
    store = open_store(path)
    problems = store.verify()
    if problems:
        for problem in problems[:_SHOWN]:
            reporter.warn(problem)
        raise CorruptError(
            f"{path}",
            expected="files with their checksums",
            found=problems[0] if len(problems) == 1 else f"{len(problems)} problems, the first: {problems[0]}",
        )
    readers = [store.recording(name) for name in store.recordings]
    return StoreVerifyResult(
        **work.common(),
        path=str(path),
        recordings=len(readers),
        rows=sum(reader.num_rows for reader in readers),
        stored_bytes=sum(reader.stored_bytes for reader in readers),
    )


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


def store_export(config: StoreExportConfig, reporter: Reporter = SILENT) -> StoreExportResult:  # noqa: ARG001
    """Export a slice of a recording.

    Raises:
        UsageError: The file exists, or its name doesn't tell the format; an unknown parameter.
        DataError: Rows that weren't recorded.
        LockedError: Another process is writing the file.
    """
    work = Work(stage="store export", config=config)
    reader = open_store(config.store or RunPaths(config.run).store).recording(config.recording)
    path = config.output
    assert path is not None
    work.inputs, work.outputs = {"recording": reader.digest}, {"file": path}
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
        **work.common(),
        recording=reader.name,
        rows=rows,
        columns=columns,
        file_bytes=sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file()),
    )


@dataclass(frozen=True, kw_only=True)
class StoreMergeResult(StageResult):
    """Result of store merge.

    Attributes:
        rows: Rows of all parts.
        columns: Unpruned parameters.
        stored_bytes: Bytes of the shards.
        parts: Digest, rows and seed of each recording, in order.
    """

    rows: int
    columns: int
    stored_bytes: int
    parts: list[dict[str, object]]


def store_merge(config: StoreMergeConfig, reporter: Reporter = SILENT) -> StoreMergeResult:  # noqa: ARG001
    """Merge stores.

    Raises:
        MismatchError: Another model, mask, optimizer or definition of a row.
        DataError: A recording that isn't finished.
        UsageError: Something else exists at the output, or the output is one of the parts.
    """
    path = config.output
    assert path is not None
    work = Work(stage="store merge", config=config, outputs={"store": path})
    sources = [parse_place(store) for store in config.stores]
    if real_path(path) in [real_path(source) for source in sources if isinstance(source, Path)]:
        raise UsageError("--output", expected="another path than the stores'", found=f"{path}")
    make_directory(path.parent)
    with FileLock(lock_path(path)):
        if config.overwrite and path.exists():
            Store.delete(path)
        merge = Merge.of([open_store(source) for source in sources], config.codec)
        existing: RecordingReader | None = None
        if path.exists():
            with suppress(*DAMAGE):
                existing = Store.open(path).recording()
        already_done = done_already(
            f"{path}",
            True,
            existing is not None and merge.made(existing) if path.exists() else None,
            expected="nothing there yet, or a merge of the same recordings",
            found="something else",
            remedy="pass --overwrite to replace it, or choose another --output",
            error=UsageError,
        )
        if not already_done:
            merge.write(path)
        reader = existing or Store.open(path).recording()
    parts = reader.info.extra["merged"]
    work.inputs = {f"recording {number}": part["digest"] for number, part in enumerate(parts)}
    return StoreMergeResult(
        **work.common(already_done=already_done),
        rows=reader.num_rows,
        columns=reader.num_columns,
        stored_bytes=reader.stored_bytes,
        parts=parts,
    )


@dataclass(frozen=True, kw_only=True)
class StoreCompactResult(StageResult):
    """Result of store compact.

    Attributes:
        recoded: Recordings that were stored with another codec.
        dropped: Recordings that were deleted.
        bytes_before: Bytes of all shards before.
        bytes_after: Bytes of all shards now.
    """

    recoded: list[str]
    dropped: list[str]
    bytes_before: int
    bytes_after: int


def store_compact(config: StoreCompactConfig, reporter: Reporter = SILENT) -> StoreCompactResult:
    """Drop recordings, then store the others with another codec, each in place.

    A crash leaves each recording as it was or done; run the same command again.

    Raises:
        DataError: A recording that doesn't exist or isn't finished.
        UsageError: A codec that keeps more bits than a recording has.
        LockedError: Another process is recording into the store, or changing fits.
    """
    path = config.store or RunPaths(config.run).store
    work = Work(stage="store compact", config=config, outputs={"store": path})
    store = open_store(path)
    store.recover(break_lock=config.break_lock)
    before = {name: store.recording(name).stored_bytes for name in store.recordings}
    missing = [name for name in config.drop if name not in before]
    if missing:
        raise DataError(
            f"{path}", expected=f"recording {missing[0]!r}", found=", ".join(before) or "none", remedy="see info"
        )
    for name in config.drop:
        store.delete_recording(name, break_lock=config.break_lock)
    recoded = []
    if config.codec is not None:
        recoded = [name for name in store.recordings if store.recording(name).codec != config.codec]
        with reporter.task("compact", len(recoded)) as bar:
            for name in recoded:
                recode(store, name, config.codec)
                bar.advance(1)
    return StoreCompactResult(
        **work.common(),
        recoded=recoded,
        dropped=list(config.drop),
        bytes_before=sum(before.values()),
        bytes_after=sum(store.recording(name).stored_bytes for name in store.recordings),
    )
