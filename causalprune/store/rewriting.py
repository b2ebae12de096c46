"""Storing a recording anew: its rows are streamed through two blocks of memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from causalprune.errors import DataError, UsageError
from causalprune.store.codec import Codec
from causalprune.store.commits import CommitLog
from causalprune.store.files import Location
from causalprune.store.fits import write_fit_group
from causalprune.store.info import RecordingSchema
from causalprune.store.layout import RecordingLayout, StoreLayout
from causalprune.store.lifecycle import begin_recording, finish_recording
from causalprune.store.metadata import attributes_checksum, read_attributes
from causalprune.store.reader import RecordingReader
from causalprune.store.steps import STEP_FIELDS
from causalprune.store.writer import RecordingWriter

LEAST_QUEUE = 1
"""Bytes; the writer keeps two blocks all the same."""


def recode(layout: StoreLayout, reader: RecordingReader, codec: Codec) -> None:
    """Give a recording another codec, in its place; the caller holds the store's locks.

    Raises:
        DataError: It isn't finished.
        UsageError: The codec keeps bits that the recording doesn't have.
    """
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
            "--codec",
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
