"""Beginning, rewinding and finishing a recording: each step leaves a store that can be read, and taken up again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from causalprune.errors import CorruptError, StorageError
from causalprune.files import (
    make_directory,
    remove_file,
    remove_partials,
    remove_tree,
    rename,
    temporary_beside,
    write_atomic,
    write_json,
)
from causalprune.store.arrays import write_array
from causalprune.store.commits import CommitLog
from causalprune.store.info import RecordingSchema
from causalprune.store.layout import METADATA, RecordingLayout, StoreLayout
from causalprune.store.metadata import REMEDY, delta_document, group_document, plain_group_document
from causalprune.store.reader import RecordingReader
from causalprune.store.shard import checksum_file


def begin_recording(layout: RecordingLayout, schema: RecordingSchema, active: np.ndarray) -> None:
    """Make a recording without rows; it appears as a whole.

    Args:
        layout: Its files, none of which exists.
        schema: Its shape and codec.
        active: (P,) bool, the parameters that have columns.

    Raises:
        StorageError: The file system refused.
    """
    temporary = RecordingLayout(temporary_beside(layout.root))

    def fill() -> None:
        make_directory(temporary.delta)
        write_json(temporary.delta_metadata, delta_document(schema.shape, schema.max_rows, schema.codec))
        write_atomic(temporary.commit_log, b"")
        write_array(temporary.active, active, ("parameter",))
        make_directory(temporary.fits)
        write_json(temporary.fits / METADATA, plain_group_document())
        write_json(temporary.metadata, group_document("recording", schema.to_json()))

    build_directory(temporary.root, layout.root, fill)


def recover_recordings(layout: StoreLayout) -> None:
    """Undo a replacement that a crash cut short, or finish it; remove what else it left. Only a writer may call it."""
    remove_partials(layout.recordings)
    for name in layout.replaced_recordings():
        replaced, target = layout.replaced_recording(name), layout.recordings / name
        if target.exists():
            remove_tree(replaced)
        else:
            rename(replaced, target)


def build_directory(temporary: Path, target: Path, fill: Callable[[], None]) -> None:
    """Fill a directory under a temporary name, then give it its own."""
    try:
        fill()
        rename(temporary, target)
    except BaseException:
        if temporary.exists():
            with suppress(StorageError):
                remove_tree(temporary)
        raise


def rewind_recording(layout: RecordingLayout, reader: RecordingReader, rows: int) -> None:
    """Drop what lies behind the first ``rows`` rows; after every step the recording can be read and rewound again."""
    log = reader.read_log()
    kept = reader.schema.shape.shards(rows)
    for commit in log.commits[:kept]:
        path = layout.shard(commit.shard)
        size = path.stat().st_size if path.exists() else -1
        if all(size != file.size for file in log.candidates(commit.shard)):
            raise CorruptError(
                f"{path}", expected=f"{commit.file.size} bytes", found=f"{size}" if size >= 0 else "none", remedy=REMEDY
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
        remove_tree(layout.steps)
    log.rewrite(rows, file_of_last)
    write_json(layout.delta_metadata, delta_document(reader.schema.shape, reader.schema.max_rows, reader.schema.codec))
    for number in layout.shard_numbers():
        if number >= kept:
            remove_file(layout.shard(number))


def finish_recording(layout: RecordingLayout, schema: RecordingSchema, log: CommitLog) -> None:
    """Write what only a complete recording has; the log, last, makes it complete."""
    if layout.steps.exists():
        remove_tree(layout.steps)
    temporary = temporary_beside(layout.steps)
    build_directory(
        temporary, layout.steps, partial(write_array, temporary, log.steps().to_matrix(), ("quantity", "row"))
    )
    write_json(layout.delta_metadata, delta_document(schema.shape, log.rows, schema.codec))
    log.rewrite(log.rows, finished=True)
