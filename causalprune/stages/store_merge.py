"""Stack the recordings of several jobs in a new store, so that one fit sees the rows of all."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from causalprune.config import StoreMergeConfig
from causalprune.errors import CausalpruneError, UsageError
from causalprune.files import make_directory
from causalprune.locking import FileLock
from causalprune.paths import lock_path
from causalprune.reporting import Reporter
from causalprune.stages.output import StageResult, done_already
from causalprune.store import RecordingReader, TrajectoryStore
from causalprune.store.merging import Merge
from causalprune.urls import parse_place


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


def store_merge(config: StoreMergeConfig, reporter: Reporter | None = None) -> StoreMergeResult:
    """Merge stores.

    Raises:
        MismatchError: Another model, mask, optimizer or definition of a row.
        DataError: A recording that isn't finished.
        UsageError: Something else is at the output already, or the output is one of the parts.
    """
    del reporter
    started = time.monotonic()
    assert config.output is not None
    path = config.output
    sources = [parse_place(store) for store in config.stores]
    if path.resolve() in [source.resolve() for source in sources if isinstance(source, Path)]:
        raise UsageError("--output", expected="another path than the stores'", found=f"{path}")
    make_directory(path.parent)
    with FileLock(lock_path(path), break_lock=config.break_lock):
        if config.overwrite and path.exists():
            TrajectoryStore.delete(path, break_lock=config.break_lock)
        merge = Merge.of([TrajectoryStore.open(source) for source in sources], config.codec)
        found: list[RecordingReader] = []

        def find() -> bool | None:
            if not path.exists():
                return None
            with suppress(CausalpruneError):
                found.append(TrajectoryStore.open(path).recording())
            return bool(found) and merge.made(found[0])

        already_done = done_already(
            f"{path}",
            True,
            find,
            overwrite=False,
            expected="nothing there yet, or a merge of the same recordings",
            found="something else",
            remedy="pass --overwrite to replace it, or choose another --output",
            error=UsageError,
        )
        if not already_done:
            merge.write(path)
        reader = found[0] if already_done else TrajectoryStore.open(path).recording()
    parts = reader.info.extra["merged"]
    return StoreMergeResult(
        stage="store merge",
        inputs={f"recording {number}": part["digest"] for number, part in enumerate(parts)},
        outputs={"store": str(path)},
        already_done=already_done,
        seconds=time.monotonic() - started,
        rows=reader.num_rows,
        columns=reader.num_columns,
        stored_bytes=reader.stored_bytes,
        parts=parts,
    )
