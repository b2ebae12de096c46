"""Beginning, rewinding and finishing a recording: each step leaves a store that can be read, and taken up again."""

from __future__ import annotations

import numpy as np

from causalprune.base.errors import CorruptError
from causalprune.trajectory.commits import CommitLog
from causalprune.trajectory.layout import METADATA, RecordingLayout, StoreLayout
from causalprune.trajectory.reader import RecordingReader
from causalprune.trajectory.schema import RecordingSchema
from causalprune.trajectory.shard import checksum_file
from causalprune.trajectory.storage import Location
from causalprune.trajectory.zarr_files import REMEDY, delta_document, group_document, plain_group_document, write_array


def begin_recording(layout: RecordingLayout, schema: RecordingSchema, active: np.ndarray) -> None:
    """Make a recording without rows; it appears as a whole.

    Args:
        layout: Its files, none of which exists.
        schema: Its shape and codec.
        active: (P,) bool, the parameters that have columns.

    Raises:
        StorageError: The file system refused.
    """

    def fill(root: Location) -> None:
        new = RecordingLayout(root)
        new.delta.make_folder()
        new.delta_metadata.write_json(delta_document(schema.shape, schema.max_rows, schema.codec))
        new.commit_log.write(b"")
        write_array(new.active, active, ("parameter",))
        new.fits.make_folder()
        (new.fits / METADATA).write_json(plain_group_document())
        new.metadata.write_json(group_document("recording", schema.to_json()))

    layout.root.build(fill)


def recover_recordings(layout: StoreLayout) -> None:
    """Undo a replacement that a crash cut short, or finish it; remove what else it left. Only a writer may call it."""
    layout.recordings.clear_leftovers()
    for name in layout.replaced_recordings():
        replaced, target = layout.replaced_recording(name), layout.recordings / name
        if target.exists():
            replaced.remove_folder()
        else:
            replaced.move(target)


def rewind_recording(layout: RecordingLayout, reader: RecordingReader, log: CommitLog, rows: int) -> None:
    """Drop what lies behind the first ``rows`` rows; after every step the recording can be read and rewound again.

    Args:
        layout: The recording's files.
        reader: The recording.
        log: Its log, which this process has claimed.
        rows: Rows to keep.
    """
    kept = reader.schema.shape.shards(rows)
    sizes = layout.delta.sizes()
    for commit in log.commits[:kept]:
        shard = layout.shard(commit.shard)
        size = sizes.get(shard.name)
        if all(size != file.size for file in log.candidates(commit.shard)):
            raise CorruptError(
                f"{shard}",
                expected=f"{commit.file.size} bytes",
                found="none" if size is None else f"{size}",
                remedy=REMEDY,
            )
    file_of_last = None
    if kept:
        last = layout.shard(kept - 1)
        found = checksum_file(last)
        same = [file for file in log.candidates(kept - 1) if (file.size, file.checksum) == found]
        if not same:
            raise CorruptError(
                f"{last}", expected="the CRC32C in the commit log", found=f"{found[1]:08x}", remedy=REMEDY
            )
        file_of_last = same[0]
    if layout.steps.exists():
        layout.steps.remove_folder()
    log.rewrite(rows, file_of_last)
    layout.delta_metadata.write_json(delta_document(reader.schema.shape, reader.schema.max_rows, reader.schema.codec))
    for number in layout.shard_numbers():
        if number >= kept:
            layout.shard(number).remove()


def finish_recording(layout: RecordingLayout, schema: RecordingSchema, log: CommitLog) -> None:
    """Write what only a complete recording has; the log, last, makes it complete."""
    log.require_mine()
    if layout.steps.exists():
        layout.steps.remove_folder()
    layout.steps.build(lambda folder: write_array(folder, log.steps().to_matrix(), ("quantity", "row")))
    layout.delta_metadata.write_json(delta_document(schema.shape, log.rows, schema.codec))
    log.rewrite(log.rows, finished=True)
