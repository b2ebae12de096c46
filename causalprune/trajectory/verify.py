"""Comparing everything in a recording with its checksums."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from causalprune.base.errors import CausalpruneError
from causalprune.trajectory.commits import CommitLog
from causalprune.trajectory.layout import RecordingLayout
from causalprune.trajectory.shard import checksum_file
from causalprune.trajectory.steps import STEP_FIELDS
from causalprune.trajectory.storage.location import damaged
from causalprune.trajectory.zarr_files import read_array

if TYPE_CHECKING:
    from causalprune.trajectory.reader import RecordingReader

_ATTEMPTS = 5


def verify_recording(reader: RecordingReader) -> list[str]:
    """List what is wrong with a recording, one line per problem; its metadata were checked when it was opened."""
    layout = reader.layout
    checks: list[Callable[[], object]] = [lambda: reader.active, layout.fits.require]
    checks += [partial(_require_fit, reader, name) for name in reader.fits]
    # The files are listed before the log is read: then it misses at most the shard that was being committed.
    numbers = layout.shard_numbers()
    log = reader.read_log()
    checks += [partial(_require_shard, reader, commit.shard) for commit in log.commits]
    checks.append(partial(_require_known, layout, numbers, log))
    if log.finished:
        checks.append(partial(_require_steps, layout, log))
    problems = []
    for check in checks:
        try:
            check()
        except CausalpruneError as error:
            problems.append(f"{error}")
    return problems


def _require_fit(reader: RecordingReader, name: str) -> None:
    for _ in reader.read_fit(name).arrays.values():
        pass


def _require_shard(reader: RecordingReader, shard: int) -> None:
    location = reader.layout.shard(shard)
    for _ in range(_ATTEMPTS):
        expected = reader.read_log().candidates(shard)
        found = checksum_file(location)
        if found in [(file.size, file.checksum) for file in expected]:
            return
        if [file.checksum for file in reader.read_log().candidates(shard)] == [file.checksum for file in expected]:
            break
    allowed = " or ".join(f"{file.size} bytes with CRC32C {file.checksum:08x}" for file in expected) or "no file"
    raise damaged(location, expected=allowed, found=f"{found[0]} with {found[1]:08x}")


def _require_known(layout: RecordingLayout, numbers: list[int], log: CommitLog) -> None:
    unknown = [number for number in numbers if number >= len(log.commits)]
    if len(unknown) > (0 if log.finished else 1):
        expected = f"the commit of {layout.shard(unknown[0])}"
        raise damaged(layout.commit_log, expected=expected, found=f"{log.rows} rows")


def _require_steps(layout: RecordingLayout, log: CommitLog) -> None:
    stored = read_array(layout.steps, (len(STEP_FIELDS), log.rows), np.dtype(np.float64), ("quantity", "row"))
    if stored.tobytes() != log.steps().to_matrix().tobytes():
        raise damaged(layout.steps, expected="the scalars of the commit log", found="others")
