"""Make a trajectory store smaller: another codec for its recordings, or fewer of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from causalprune.config import StoreCompactConfig
from causalprune.errors import DataError
from causalprune.paths import RunPaths
from causalprune.reporting import Reporter
from causalprune.stages.output import StageResult
from causalprune.store import TrajectoryStore
from causalprune.store.rewriting import recode


@dataclass(frozen=True, kw_only=True)
class StoreCompactResult(StageResult):
    """Result of store compact.

    Attributes:
        recoded: Recordings that were stored anew.
        dropped: Recordings that were deleted.
        bytes_before: Bytes of all shards before.
        bytes_after: And now.
    """

    recoded: list[str]
    dropped: list[str]
    bytes_before: int
    bytes_after: int


def store_compact(config: StoreCompactConfig, reporter: Reporter | None = None) -> StoreCompactResult:
    """Drop recordings, then store those that are left with another codec, each in its place.

    A crash leaves every recording either as it was or done; run the same command again.

    Raises:
        DataError: A recording that isn't there or isn't finished.
        UsageError: A codec that keeps more bits than a recording has.
        LockedError: Another process is recording into the store, or changing fits.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    path = config.store or RunPaths(config.run).store
    store = TrajectoryStore.open(path)
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
        names = [name for name in store.recordings if store.recording(name).codec != config.codec]
        with reporter.task("compact", len(names)) as bar:
            for name in names:
                recode(store, name, config.codec, break_lock=config.break_lock)
                recoded.append(name)
                bar.advance(1)
    return StoreCompactResult(
        stage="store compact",
        inputs={},
        outputs={"store": str(path)},
        seconds=time.monotonic() - started,
        recoded=recoded,
        dropped=list(config.drop),
        bytes_before=sum(before.values()),
        bytes_after=sum(store.recording(name).stored_bytes for name in store.recordings),
    )
