"""Checks of a recording's files: against each other when it is opened, and against all checksums on demand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from causalprune.base.errors import DAMAGE, CorruptError
from causalprune.trajectory.commits import CommitLog, ShardFile
from causalprune.trajectory.layout import RecordingLayout, shard_name
from causalprune.trajectory.schema import MAX_ROWS, RecordingSchema
from causalprune.trajectory.shard import identify_file
from causalprune.trajectory.steps import STEP_FIELDS, Steps
from causalprune.trajectory.storage.location import ReplacedError, damaged
from causalprune.trajectory.zarr_files import METADATA, delta_document, read_array, read_document, require_document

if TYPE_CHECKING:
    from causalprune.trajectory.reader import RecordingReader

_ATTEMPTS = 5


def consistent_log(layout: RecordingLayout, schema: RecordingSchema, read_log: Callable[[], CommitLog]) -> CommitLog:
    """Read the commit log, and check that the metadata of the deltas agree with it.

    Raises:
        CorruptError: They don't, or a file is missing or damaged.
    """
    for attempt in range(_ATTEMPTS):
        # The log first: the shape is cut to T before the log says that the recording is finished.
        log = read_log()
        try:
            _require_delta(layout, schema, log)
            return log
        except CorruptError:
            # Only a writer that finishes or reopens the recording at this moment explains it.
            now = read_log()
            if attempt == _ATTEMPTS - 1 or (now.rows, now.finished) == (log.rows, log.finished):
                raise
    raise AssertionError


def _require_delta(layout: RecordingLayout, schema: RecordingSchema, log: CommitLog) -> None:
    file = layout.delta_metadata
    shape = read_document(file, "array").get("shape")
    rows = shape[0] if isinstance(shape, list) and shape and type(shape[0]) is int else -1
    if not log.rows <= rows <= (log.rows if log.finished else MAX_ROWS):
        raise damaged(file, expected=f"{log.rows} rows, as in the commit log", found=f"{shape}"[:80])
    require_document(file, delta_document(schema, rows))
    if log.finished or not layout.steps.exists():
        return
    # The steps are written just before the log's last line: without that line, the log must still have their rows.
    shape = read_document(layout.steps / METADATA, "array").get("shape")
    if shape != [len(log.step_names), log.rows]:
        raise damaged(layout.commit_log, expected=f"as many rows as steps {shape}"[:80], found=log.rows)


def stored_steps(layout: RecordingLayout, log: CommitLog) -> Steps | None:
    """The scalars of a complete recording from their array.

    Returns:
        None if there is no whole array, or one whose first or last rows aren't the log's.
    """
    if not log.finished or not log.commits:
        return None
    with suppress(*DAMAGE):
        matrix = read_array(layout.steps, (len(log.step_names), log.rows), np.dtype(np.float64), ("quantity", "row"))
        first, last = (log.commits[end].read_steps.to_matrix() for end in (0, -1))
        if np.array_equal(matrix[:, : first.shape[1]], first) and np.array_equal(matrix[:, -last.shape[1] :], last):
            return Steps.from_matrix(matrix.T, log.step_names[len(STEP_FIELDS) :])
    return None


def verify_recording(reader: RecordingReader) -> list[str]:
    """List what is wrong with a recording, one line per problem; its metadata were checked when it was opened."""
    layout = reader.layout
    checks: list[Callable[[], object]] = [lambda: reader.active, partial(_require_sample, reader), layout.fits.require]
    checks += [partial(_require_fit, reader, name) for name in reader.fits]
    checks.append(partial(_require_layer_statistics, reader))
    # The files are listed before the log is read: then it misses at most the shard that was being committed.
    numbers = layout.shard_numbers()
    log = reader.read_log()
    checks += [partial(_require_shard, reader, commit.shard, log) for commit in log.commits]
    checks.append(partial(_require_known, layout, numbers, log))
    if log.finished:
        checks.append(partial(_require_steps, layout, log))
    problems = []
    for check in checks:
        try:
            check()
        except DAMAGE as error:
            problems.append(f"{error}")
    return problems


def shards_of_wrong_length(layout: RecordingLayout, log: CommitLog, read_log: Callable[[], CommitLog]) -> list[str]:
    """List the shards that are missing or of another length than the commit log says, one line each; none is read.

    Args:
        layout: The recording's files.
        log: Its log as it was read.
        read_log: Reads it anew, where it doesn't go with the files.
    """
    problems: list[str] = []
    for attempt in range(_ATTEMPTS):
        sizes = layout.delta.sizes()
        if attempt:
            # After the lengths: before a writer replaces a shard, it says so in the log.
            before, log = (log.rows, log.pending), read_log()
            if attempt > 1 and (log.rows, log.pending) == before:
                break
        problems = []
        for commit in log.commits:
            expected = dict.fromkeys(file.size for file in log.candidates(commit.shard))
            found = sizes.get(shard_name(commit.shard))
            if found not in expected:
                wanted = " or ".join(f"{size} bytes" for size in expected)
                error = damaged(layout.shard(commit.shard), expected=wanted, found=_length(found))
                problems.append(f"{error}")
        if not problems:
            break
    return problems


def _length(size: int | None) -> str:
    return "no file" if size is None else f"{size} bytes"


def _require_sample(reader: RecordingReader) -> None:
    sample = reader.info.sample
    if sample is not None and not np.array_equal(sample.draw(reader.index, reader.candidates), reader.active):
        expected = f"a share of {sample.share:g} drawn with seed {sample.seed}"
        raise damaged(reader.layout.active, expected=expected, found="other columns")


def _require_fit(reader: RecordingReader, name: str) -> None:
    reader.read_fit(name).require_whole()


def _require_layer_statistics(reader: RecordingReader) -> None:
    found = reader.read_layer_statistics()
    if found is not None:
        found.require_whole()


def _require_shard(reader: RecordingReader, shard: int, log: CommitLog) -> None:
    location, expected = reader.layout.shard(shard), log.candidates(shard)
    found: ShardFile | None = None
    for _ in range(_ATTEMPTS):
        with suppress(ReplacedError):
            found = identify_file(location, reader.schema.shape)
        if found is not None and any(file.is_found(found) for file in expected):
            return
        # A writer may have replaced the file since the log was read; before it does so, it says so in the log.
        before, expected = expected, reader.read_log().candidates(shard)
        if expected == before:
            break
    raise damaged(location, expected=" or ".join(map(str, expected)) or "no file", found=found)


def _require_known(layout: RecordingLayout, numbers: list[int], log: CommitLog) -> None:
    unknown = [number for number in numbers if number >= len(log.commits)]
    if len(unknown) > (0 if log.finished else 1):
        expected = f"the commit of {layout.shard(unknown[0])}"
        raise damaged(layout.commit_log, expected=expected, found=f"{log.rows} rows")


def _require_steps(layout: RecordingLayout, log: CommitLog) -> None:
    expected = log.steps().to_matrix()
    stored = read_array(layout.steps, expected.shape, np.dtype(np.float64), ("quantity", "row"))
    if stored.tobytes() != expected.tobytes():
        raise damaged(layout.steps, expected="the scalars of the commit log", found="others")
