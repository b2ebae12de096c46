"""Comparing everything in a recording with its checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from causalprune.base.errors import CausalpruneError, CorruptError
from causalprune.trajectory.commits import CommitLog
from causalprune.trajectory.fits import FitStore
from causalprune.trajectory.layout import METADATA, RecordingLayout
from causalprune.trajectory.shard import checksum_file
from causalprune.trajectory.steps import STEP_FIELDS
from causalprune.trajectory.zarr_files import REMEDY, read_array, read_document

_ATTEMPTS = 5


def verify_recording(
    layout: RecordingLayout, fits: FitStore, read_log: Callable[[], CommitLog], read_active: Callable[[], np.ndarray]
) -> list[str]:
    """List what is wrong with a recording, a line a problem; its metadata were checked when it was opened.

    Args:
        layout: The recording's files.
        fits: Its fits.
        read_log: Reads the commit log; a writer may append to it meanwhile.
        read_active: Reads the mask.
    """
    checks: list[Callable[[], object]] = [read_active, partial(read_document, layout.fits / METADATA, "group")]
    checks += [partial(_require_fit, fits, name) for name in fits.names()]
    # The files before the log: of what exists now, the log misses at most the shard that was being committed.
    numbers = layout.shard_numbers()
    log = read_log()
    checks += [partial(_require_shard, layout, commit.shard, read_log) for commit in log.commits]
    checks.append(partial(_require_known, layout, numbers, log))
    if log.finished:
        checks.append(partial(_require_steps, layout, log))
    return list(_problems(checks))


def _problems(checks: list[Callable[[], object]]) -> Iterator[str]:
    for check in checks:
        try:
            check()
        except CausalpruneError as error:
            yield f"{error}"


def _require_fit(fits: FitStore, name: str) -> None:
    for _ in fits.read(name).arrays.values():
        pass


def _require_shard(layout: RecordingLayout, shard: int, read_log: Callable[[], CommitLog]) -> None:
    location = layout.shard(shard)
    for _ in range(_ATTEMPTS):
        expected = read_log().candidates(shard)
        found = checksum_file(location)
        if found in [(file.size, file.checksum) for file in expected]:
            return
        if [file.checksum for file in read_log().candidates(shard)] == [file.checksum for file in expected]:
            break
    raise CorruptError(
        f"{location}",
        expected=" or ".join(f"{file.size} bytes with CRC32C {file.checksum:08x}" for file in expected) or "no file",
        found=f"{found[0]} with {found[1]:08x}",
        remedy=REMEDY,
    )


def _require_known(layout: RecordingLayout, numbers: list[int], log: CommitLog) -> None:
    unknown = [number for number in numbers if number >= len(log.commits)]
    if len(unknown) > (0 if log.finished else 1):
        raise CorruptError(
            f"{layout.commit_log}",
            expected=f"the commit of {layout.shard(unknown[0])}",
            found=f"{log.rows} rows",
            remedy=REMEDY,
        )


def _require_steps(layout: RecordingLayout, log: CommitLog) -> None:
    matrix = log.steps().to_matrix()
    names = ("quantity", "row")
    if (
        read_array(layout.steps, (len(STEP_FIELDS), log.rows), np.dtype(np.float64), names).tobytes()
        != matrix.tobytes()
    ):
        raise CorruptError(f"{layout.steps}", expected="the scalars of the commit log", found="others", remedy=REMEDY)
