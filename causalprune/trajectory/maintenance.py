"""Storing a recording anew: its rows are streamed through two blocks of memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from causalprune.base.errors import DataError, UsageError
from causalprune.base.urls import StoreUrl
from causalprune.trajectory.codec import Codec, find_codec
from causalprune.trajectory.commits import CommitLog
from causalprune.trajectory.fits import write_fit_group
from causalprune.trajectory.layout import RecordingLayout, StoreLayout
from causalprune.trajectory.lifecycle import begin_recording, finish_recording, recover_recordings
from causalprune.trajectory.reader import RecordingReader
from causalprune.trajectory.schema import RecordingSchema
from causalprune.trajectory.steps import STEP_FIELDS
from causalprune.trajectory.storage import Location
from causalprune.trajectory.store import TrajectoryStore
from causalprune.trajectory.writer import RecordingWriter
from causalprune.trajectory.zarr_files import attributes_checksum, read_attributes

LEAST_QUEUE = 1
"""Bytes; the writer keeps two blocks all the same."""


def recode(store: TrajectoryStore, name: str, codec_name: str) -> None:
    """Store a finished recording with another codec, in its place, with its fits.

    It is streamed into a new recording that then takes the old one's name; a crash leaves one of them. Memory:
    two blocks of rows. Fits keep the digest of the recording that they were made from.

    Args:
        store: A store on a disk.
        name: The recording.
        codec_name: A codec that keeps no more bits than the recording has.

    Raises:
        DataError: There is no such recording, or it isn't finished.
        UsageError: A store elsewhere, an unknown codec, or one that keeps bits which the recording doesn't have.
        CorruptError: A file is missing or damaged.
        LockedError: Another process is recording into the store, or changing fits.
        StorageError: The file system refused.
    """
    if isinstance(store.path, StoreUrl):
        raise UsageError(
            "codec",
            expected="a store on a disk",
            found=f"{store.path}",
            remedy="copy it there, compact it, and copy it back: the files are the same",
        )
    layout = store.layout
    with layout.lock.lock(), layout.fits_lock.lock():
        recover_recordings(layout)
        _recode(layout, store.recording(name), find_codec(codec_name))


def _recode(layout: StoreLayout, reader: RecordingReader, codec: Codec) -> None:
    own = reader.schema.codec
    if not reader.finished:
        raise DataError(
            f"recording {reader.name} in {layout.root}",
            expected="a finished recording",
            found=f"{reader.num_rows} rows of up to {reader.schema.max_rows}",
            remedy="finish it with the same record command, or drop it",
        )
    if codec.mantissa_bits > own.mantissa_bits:
        raise UsageError(
            "codec",
            expected=f"one that keeps at most the {own.mantissa_bits} mantissa bits of recording {reader.name}",
            found=f"{codec.name}, which keeps {codec.mantissa_bits}",
        )
    schema = replace(reader.schema, codec=codec, max_rows=reader.num_rows)

    def fill(root: Location) -> None:
        new = RecordingLayout(root)
        begin_recording(new, schema, reader.active)
        with _writer(new, schema, reader) as writer:
            append_recording(reader, writer)
            writer.finish()
        for name in reader.fits:
            fit = reader.read_fit(name)
            write_fit_group(new.fit(name), fit.arrays, fit.attributes)

    (layout.recordings / reader.name).replace(layout.replaced_recording(reader.name), fill)


def _writer(layout: RecordingLayout, schema: RecordingSchema, source: RecordingReader) -> RecordingWriter:
    seed = attributes_checksum(read_attributes(layout.metadata, "recording"))
    log = CommitLog.read(layout.commit_log, seed, schema.shape.rows, schema.max_rows)
    return RecordingWriter(
        layout,
        schema,
        log,
        describe=source.describe_column,
        release=lambda: None,
        finalize=partial(finish_recording, layout, schema, log),
        tail=np.empty((0, schema.shape.columns), np.float32),
        queue_bytes=LEAST_QUEUE,
    )


def append_recording(reader: RecordingReader, writer: RecordingWriter) -> None:
    """Append all rows of a recording with the same columns, decoded into the writer's own memory."""
    steps = reader.steps
    row = 0
    while row < reader.num_rows:
        room = writer.room()
        # Up to the end of a shard of the source, so that the next piece decodes nothing again.
        count = min(len(room), reader.block_rows - row % reader.block_rows, reader.num_rows - row)
        reader.read_rows(row, row + count, room[:count])
        for delta in room[:count]:
            writer.append(delta, **{name: steps[name][row].item() for name in STEP_FIELDS})
            row += 1
