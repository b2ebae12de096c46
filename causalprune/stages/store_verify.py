"""Read everything in a trajectory store and compare it with its checksums."""

from __future__ import annotations

import time
from dataclasses import dataclass

from causalprune.config import StoreVerifyConfig
from causalprune.errors import CorruptError
from causalprune.paths import RunPaths
from causalprune.reporting import Reporter
from causalprune.stages.output import StageResult
from causalprune.store import TrajectoryStore

_SHOWN = 10


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


def store_verify(config: StoreVerifyConfig, reporter: Reporter | None = None) -> StoreVerifyResult:
    """Compare every byte of a store with what was recorded about it.

    Raises:
        CorruptError: Something is missing or damaged; each file is named.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    path = config.store or RunPaths(config.run).store
    store = TrajectoryStore.open(path)
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
        stage="store verify",
        inputs={},
        outputs={},
        seconds=time.monotonic() - started,
        path=str(path),
        recordings=len(readers),
        rows=sum(reader.num_rows for reader in readers),
        stored_bytes=sum(reader.stored_bytes for reader in readers),
    )
