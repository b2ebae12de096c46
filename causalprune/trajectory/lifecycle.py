"""Beginning, rewinding, finishing and leaving a recording; each step leaves one that can be read and rewound again."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causalprune.base.progress import logger
from causalprune.trajectory.array_groups import LAYER_STATISTICS, array_group
from causalprune.trajectory.commits import CommitLog
from causalprune.trajectory.layout import RecordingLayout
from causalprune.trajectory.reader import RecordingReader
from causalprune.trajectory.schema import RecordingSchema
from causalprune.trajectory.shard import identify_file
from causalprune.trajectory.storage.location import Location, damaged
from causalprune.trajectory.zarr_files import delta_document, group_document, write_array

if TYPE_CHECKING:
    from causalprune.trajectory.writer import RecordingWriter


def begin_recording(
    layout: RecordingLayout, schema: RecordingSchema, active: np.ndarray, candidates: np.ndarray | None = None
) -> None:
    """Make a recording without rows; it appears as a whole.

    Args:
        layout: Its files, none of which exists.
        schema: Its shape and codec.
        active: (P,) bool, the parameters that have columns.
        candidates: (P,) bool, those of which they are a sample; None without one.

    Raises:
        StorageError: Storage refused.
    """

    def fill(root: Location) -> None:
        new = RecordingLayout(root)
        new.delta.make_folder()
        new.delta_metadata.write_json(delta_document(schema, schema.max_rows))
        new.commit_log.write(b"")
        write_array(new.active, active, ("parameter",))
        if candidates is not None:
            write_array(new.candidates, candidates, ("parameter",))
        new.fits.make()
        new.metadata.write_json(group_document("recording", schema.to_json(), version=schema.format_version))

    layout.root.build(fill)


def rewind_recording(reader: RecordingReader, log: CommitLog, rows: int) -> None:
    """Drop everything after the first ``rows`` rows.

    Args:
        reader: The recording.
        log: Its log, which this process has claimed.
        rows: Rows to keep.

    Raises:
        CorruptError: A shard to keep is missing or damaged.
    """
    layout = reader.layout
    kept = reader.schema.shape.shards(rows)
    sizes = layout.delta.sizes()
    for commit in log.commits[:kept]:
        shard = layout.shard(commit.shard)
        size = sizes.get(shard.name)
        if all(size != file.size for file in log.candidates(commit.shard)):
            raise damaged(shard, expected=f"{commit.file.size} bytes", found="none" if size is None else size)
    file_of_last = None
    if kept:
        last = layout.shard(kept - 1)
        found = identify_file(last, reader.schema.shape)
        same = [file for file in log.candidates(kept - 1) if file.is_found(found)]
        if not same:
            raise damaged(last, expected="the CRC32C in the commit log", found=found)
        file_of_last = same[0]
    # What only a recording that has ended has.
    for folder in (layout.steps, layout.layer_statistics):
        if folder.exists():
            folder.remove_folder()
    log.rewrite(rows, file_of_last)
    layout.delta_metadata.write_json(delta_document(reader.schema, max(reader.schema.max_rows, rows)))
    for number in layout.shard_numbers():
        if number >= kept:
            layout.shard(number).remove()


def make_room(reader: RecordingReader, log: CommitLog, rows: int) -> None:
    """Make an unfinished recording ``rows`` long; before there are as many, so that no reader finds more than that."""
    log.require_mine()
    reader.layout.delta_metadata.write_json(delta_document(reader.schema, rows))


def keep_layer_statistics(
    reader: RecordingReader, log: CommitLog, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> None:
    """Store what was measured of the layers, as a whole, in place of what was measured before.

    Args:
        reader: An unfinished recording.
        log: Its log, which this process has claimed.
        arrays: As for a fit.
        attributes: As for a fit.
    """
    folder, fill = reader.layout.layer_statistics, array_group(LAYER_STATISTICS, arrays, attributes)
    log.require_mine()
    if folder.exists():
        folder.remove_folder()
    folder.build(fill)


def finish_recording(reader: RecordingReader, log: CommitLog, weights: str = "") -> None:
    """Write the files that only a complete recording has; the log, written last, makes it complete.

    Args:
        reader: The recording.
        log: Its log, which this process has claimed.
        weights: Hash of the weights after the last row, if it is known.
    """
    layout = reader.layout
    log.require_mine()
    if layout.steps.exists():
        layout.steps.remove_folder()
    layout.steps.build(lambda folder: write_array(folder, log.steps().to_matrix(), ("quantity", "row")))
    layout.delta_metadata.write_json(delta_document(reader.schema, log.rows))
    log.rewrite(log.rows, finished=True, weights=weights)


_open: dict[RecordingWriter, int] = {}
"""How many rows the recording of each had when it was opened."""


def opened(writer: RecordingWriter) -> None:
    """Remember a writer until :func:`closed`, so that what it was given is committed when the interpreter ends."""
    _open[writer] = writer.rows_appended


def closed(writer: RecordingWriter) -> None:
    """Forget a writer."""
    _open.pop(writer, None)


def open_writers(store: Location) -> list[RecordingWriter]:
    """The writers of this process that record into a store."""
    inside = f"{store.resolve()}/"
    return [writer for writer in _open if f"{writer.path.resolve()}".startswith(inside)]


@atexit.register
def _close_all() -> None:
    # Threads that run already still run here, and each writer has its own; no new one can be started any more.
    for writer, before in list(_open.items()):
        path = writer.path
        try:
            writer.close()
        except Exception as error:
            logger.warning("recording %s wasn't closed, and its last rows are lost: %s", path, error)
            continue
        rows = writer.rows_committed
        if rows > before:
            logger.warning(
                "recording %s wasn't closed: its %d rows are committed, but it isn't marked as finished; use the "
                "recorder in a with statement, or call its close()",
                path,
                rows,
            )


# A fork has a copy of the writer, but not its thread; the rows are the parent's to write.
os.register_at_fork(after_in_child=_open.clear)
