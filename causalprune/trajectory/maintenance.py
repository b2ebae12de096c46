"""Rewriting recordings: one with another codec, or those of several stores as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.base.files import remove_partials
from causalprune.base.paths import StoreUrl
from causalprune.trajectory.array_groups import LAYER_STATISTICS, array_group
from causalprune.trajectory.codec import Codec, find_codec
from causalprune.trajectory.layout import RecordingLayout, StoreLayout
from causalprune.trajectory.lifecycle import begin_recording
from causalprune.trajectory.reader import RecordingReader
from causalprune.trajectory.schema import COMPACTED, RecordingInfo
from causalprune.trajectory.storage import locate
from causalprune.trajectory.storage.location import Location
from causalprune.trajectory.store import Store
from causalprune.trajectory.writer import RecordingWriter

LEAST_QUEUE = 1
"""Bytes; the writer uses two blocks nevertheless."""


def recode(store: Store, name: str, codec_name: str) -> None:
    """Replace a finished recording with the same one in another codec, and keep its fits and its layers' statistics.

    It is streamed into a new recording that then takes the old one's name; a crash leaves one of them. Memory:
    two blocks of rows. Fits keep the digest of the recording that they were computed from, which the recording
    notes (:attr:`RecordingReader.digests <causalprune.trajectory.reader.RecordingReader.digests>`).

    Args:
        store: A store on a disk.
        name: The recording.
        codec_name: A codec that keeps no more bits than the recording has.

    Raises:
        DataError: There is no such recording, or it isn't finished.
        UsageError: A store in object storage, an unknown codec, or one that keeps more bits than the recording has.
        CorruptError: A file is missing or damaged.
        LockedError: Another process is recording into the store, or changing fits.
        StorageError: Storage refused.
    """
    if isinstance(store.path, StoreUrl):
        raise UsageError(
            "`codec`",
            expected="a store on a disk",
            found=f"{store.path}",
            remedy="copy it there, compact it, and copy it back: the files are the same",
        )
    layout = store.layout
    with layout.lock.lock(), layout.fits_lock.lock():
        layout.recordings.recover()
        _recode(layout, store.recording(name), find_codec(codec_name))


def _recode(layout: StoreLayout, reader: RecordingReader, codec: Codec) -> None:
    own = reader.schema.codec
    if not reader.finished:
        raise DataError(
            f"recording {reader.name} in {layout.root}",
            expected="a finished recording",
            found=f"an unfinished one of {reader.num_rows} rows",
            remedy="finish it with the same record command, or drop it",
        )
    if codec.mantissa_bits > own.mantissa_bits:
        raise UsageError(
            "`codec`",
            expected=f"one that keeps at most the {own.mantissa_bits} mantissa bits of recording {reader.name}",
            found=f"{codec.name}, which keeps {codec.mantissa_bits}",
        )
    # What was made of it before stays a result of this recording.
    earlier = [*reader.info.earlier_digests, *([reader.digest] if codec != own else [])]
    info = replace(reader.info, extra=reader.info.extra | ({COMPACTED: earlier} if earlier else {}))
    schema = replace(reader.schema, info=info, codec=codec, max_rows=reader.num_rows)

    def fill(root: Location) -> None:
        new = RecordingLayout(root)
        begin_recording(new, schema, reader.active, reader.candidates if reader.info.sample else None)
        recording = RecordingReader(new, reader.name, reader.index)
        with RecordingWriter(recording, recording.read_log(), queue_bytes=LEAST_QUEUE) as writer:
            append_recording(reader, writer)
            writer.end_weights = lambda: reader.end_weights
            writer.finish()
        for name in reader.fits:
            fit = reader.read_fit(name)
            array_group("fit", fit.arrays, fit.attributes)(new.fits.folder / name)
        measured = reader.read_layer_statistics()
        if measured is not None:
            array_group(LAYER_STATISTICS, measured.arrays, measured.attributes)(new.layer_statistics)

    layout.recordings.replace(reader.name, fill)


def append_recording(reader: RecordingReader, writer: RecordingWriter) -> None:
    """Append all rows of a recording with the same columns, decoding them into the writer's own memory."""
    untrained = reader.untrained
    if writer.rows_appended:
        untrained = tuple(name for name in untrained if name in writer.untrained)
    writer.untrained = untrained
    first = writer.rows_appended
    vanished = {str(first + int(row)): counts for row, counts in reader.noted.get("vanished", {}).items()}
    before = writer.noted.get("vanished", {})
    writer.noted = {**writer.noted, **reader.noted, **({"vanished": before | vanished} if before or vanished else {})}
    row = 0
    while row < reader.num_rows:
        room = writer.room()
        # Up to the end of a shard of the source, so that nothing is decoded twice.
        count = min(len(room), reader.block_rows - row % reader.block_rows, reader.num_rows - row)
        reader.read_rows(row, row + count, room[:count])
        for delta in room[:count]:
            writer.append(delta, **reader.steps.row(row))
            row += 1


@dataclass(frozen=True)
class Merge:
    """The recordings of several stores, to be stacked row by row into a single recording.

    Attributes:
        store: One of the stores; all have the same parameters.
        readers: All recordings of all stores, in order.
        info: How the merged recording was made.
        codec: Its codec.
    """

    store: Store
    readers: tuple[RecordingReader, ...]
    info: RecordingInfo
    codec: Codec

    @classmethod
    def of(cls, stores: Sequence[Store], codec: str | None = None) -> Merge:
        """Check that stores can be merged.

        Args:
            stores: Their models and masks must be the same.
            codec: Codec of the merged recording; by default that of the most exact part.

        Raises:
            DataError: A store has no recording, or one that isn't finished.
            MismatchError: The recordings can't be explained by one γ.
            UsageError: An unknown codec.
            CorruptError: A file is missing or damaged.
        """
        readers: list[RecordingReader] = []
        for store in stores:
            store.require_index(stores[0].index)
            if not store.recordings:
                raise DataError(f"{store.path}", expected="a recording", found="none", remedy="leave it out")
            readers += [store.recording(name) for name in store.recordings]
        info = merged_info(readers)
        most = max((reader.schema.codec for reader in readers), key=lambda own: own.mantissa_bits)
        return cls(stores[0], tuple(readers), info, find_codec(codec or most.name))

    def made(self, reader: RecordingReader) -> bool:
        """Whether a recording is the one that :meth:`write` makes."""
        same_codec = reader.codec == self.codec.name or bool(reader.info.earlier_digests)
        return reader.finished and self._is_info_of(reader.info) and same_codec

    def _is_info_of(self, info: RecordingInfo) -> bool:
        """Whether a merged recording is of these parts, some of which may have been compacted since, or itself."""
        mine, theirs = (_parts_of(one) for one in (self.info, info))
        same = len(mine) == len(theirs) == len(self.readers) and all(
            part | {"digest": ""} == other | {"digest": ""} and other.get("digest") in reader.digests
            for part, other, reader in zip(mine, theirs, self.readers, strict=True)
        )
        return same and replace(info, extra=_without_parts(info)) == replace(self.info, extra=_without_parts(self.info))

    def write(self, path: Path) -> None:
        """Make the store, which appears as a whole; memory: two blocks of rows. One process at a time may call it.

        Args:
            path: A path that doesn't exist.

        Raises:
            CorruptError: A file is missing or damaged.
            StorageError: Storage refused.
        """
        # Those of an earlier attempt that was killed.
        remove_partials(path.parent, path.name)

        def fill(folder: Location) -> None:
            merged = Store.create(
                Path(f"{folder}"), index=self.store.index, model=self.store.model, start_sha256=self.info.start_sha256
            )
            with merged.create_recording(
                self.info,
                self.readers[0].candidates,
                max_rows=sum(reader.num_rows for reader in self.readers),
                codec=self.codec.name,
                queue_bytes=LEAST_QUEUE,
            ) as writer:
                for reader in self.readers:
                    append_recording(reader, writer)
                writer.finish()

        locate(path).build(fill)


def merged_info(readers: Sequence[RecordingReader]) -> RecordingInfo:
    """The info of a recording that has the rows of others.

    Its seed is that of the first one; the digest, rows and seed of each part are in ``extra["merged"]``.

    Raises:
        DataError: A recording isn't finished.
        MismatchError: They can't be explained by one γ: other columns, optimizer or definition of a row.
    """
    first = readers[0]
    for reader in readers:
        where = f"recording {reader.path}"
        if not reader.finished:
            remedy = "finish it, or leave it out"
            raise DataError(where, expected="a finished recording", found="an unfinished one", remedy=remedy)
        if reader.info.momentum > 0:
            raise MismatchError(
                where,
                expected="a recording of plain SGD, whose rows stand for themselves",
                found=f"momentum {reader.info.momentum:g}, whose rows need the row before",
                remedy="fit each recording by itself",
            )
        if not np.array_equal(reader.candidates, first.candidates):
            raise MismatchError(
                where, expected=f"the unpruned parameters of {first.path}", found="others", remedy="leave it out"
            )
        for name in ("optimizer", "loss_change", "stride", "held", "label_smoothing"):
            here, there = getattr(reader.info, name), getattr(first.info, name)
            if here != there:
                raise MismatchError(
                    where, expected=f"{name} {there}, as in {first.path}", found=f"{here}", remedy="leave it out"
                )
        for name, what in (
            ("groups", "parameter groups"),
            ("left_out", "columns"),
            ("sample", "sample of columns"),
            ("step_scalars", "scalars"),
        ):
            if getattr(reader.info, name) != getattr(first.info, name):
                raise MismatchError(
                    where, expected=f"the {what} of {first.path}", found="others", remedy="leave it out"
                )
    parts: list[dict[str, Any]] = []
    for reader in readers:
        part = {"digest": reader.digest, "rows": reader.num_rows, "seed": reader.info.seed}
        known = {"weights": reader.known_weights, "checkpoints": reader.known_checkpoints}
        parts.append(part | {kind: sorted(hashes) for kind, hashes in known.items() if hashes})
    starts = {reader.info.start_sha256 for reader in readers}
    return replace(
        first.info,
        start_sha256=first.info.start_sha256 if len(starts) == 1 else "",
        start_weights="",
        identity="",
        extra={**_without_parts(first.info), "merged": parts},
    )


def _parts_of(info: RecordingInfo) -> list[dict[str, Any]]:
    found = info.extra.get("merged", [])
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []


def _without_parts(info: RecordingInfo) -> dict[str, Any]:
    """What a recording notes besides the recordings that it was made of."""
    return {name: value for name, value in info.extra.items() if name not in ("merged", COMPACTED)}
