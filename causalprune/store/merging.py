"""Stacking the recordings of several jobs, so that one fit explains the rows of all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from causalprune.errors import CausalpruneError, DataError, MismatchError, StorageError, UsageError
from causalprune.files import PARTIAL, remove_partials, remove_tree, rename
from causalprune.store.codec import Codec, find_codec
from causalprune.store.info import RecordingInfo
from causalprune.store.reader import RecordingReader
from causalprune.store.rewriting import LEAST_QUEUE, append_recording
from causalprune.store.trajectory import TrajectoryStore
from causalprune.urls import StoreUrl


def merge_stores(
    sources: Sequence[Path | StoreUrl], path: Path, *, codec: str | None = None
) -> tuple[RecordingReader, bool]:
    """Make a store with one recording: the rows of every recording of every source, in order.

    X and y of the result are those of the parts, one below the other. It appears as a whole; memory: two blocks of
    rows. Nothing is rounded unless ``codec`` asks for it. One process at a time may make a store at ``path``.

    Args:
        sources: Stores of the same model and mask.
        path: The new store.
        codec: How to store it; with as many bits as the most exact part when left out.

    Returns:
        The recording, and whether it was there already, made of the very same parts.

    Raises:
        UsageError: Something else is at ``path`` already.
        DataError: A source has no recording, or one that isn't finished.
        MismatchError: The recordings can't be explained by one γ.
        CorruptError: A file is missing or damaged.
        StorageError: The file system refused.
    """
    stores = [TrajectoryStore.open(source) for source in sources]
    readers = []
    for store in stores:
        store.require_index(stores[0].index)
        if not store.recordings:
            raise DataError(f"{store.path}", expected="a recording", found="none", remedy="leave it out")
        readers += [store.recording(name) for name in store.recordings]
    info = merged_info(readers)
    most = max((reader.schema.codec for reader in readers), key=lambda own: own.mantissa_bits)
    wanted = find_codec(codec or most.name)
    if path.exists():
        return _require_same(path, info, wanted), True
    temporary = path.with_name(f".{path.name}{PARTIAL}merge")
    # Of an earlier attempt that was killed.
    remove_partials(path.parent, path.name)
    try:
        merged = TrajectoryStore.create(
            temporary, index=stores[0].index, model=stores[0].model, start_sha256=info.start_sha256
        )
        rows = sum(reader.num_rows for reader in readers)
        with merged.create_recording(
            info, readers[0].active, max_rows=rows, codec=wanted.name, queue_bytes=LEAST_QUEUE
        ) as writer:
            for reader in readers:
                append_recording(reader, writer)
            writer.finish()
        rename(temporary, path)
    except BaseException:
        if temporary.exists():
            with suppress(StorageError):
                remove_tree(temporary)
        raise
    return TrajectoryStore.open(path).recording(), False


def _require_same(path: Path, info: RecordingInfo, codec: Codec) -> RecordingReader:
    """The recording at ``path`` if a merge would make the same one."""
    try:
        found = TrajectoryStore.open(path).recording()
        same = found.finished and found.info == info and found.schema.codec == codec
    except CausalpruneError:
        same = False
    if not same:
        raise UsageError(
            f"{path}",
            expected="nothing there yet, or a merge of the same recordings",
            found="something else",
            remedy="pass --overwrite to replace it, or choose another --output",
        )
    return found


def merged_info(readers: Sequence[RecordingReader]) -> RecordingInfo:
    """What a recording that holds the rows of others says about how it was made.

    Its seed is the first one's; each part's digest and rows are in ``extra["merged"]``.

    Raises:
        DataError: A recording isn't finished.
        MismatchError: They can't be explained by one γ: other columns, optimizer or definition of a row.
    """
    first = readers[0]
    for reader in readers:
        where = f"recording {reader.path}"
        if not reader.finished:
            raise DataError(
                where, expected="a finished recording", found="an unfinished one", remedy="finish it, or leave it out"
            )
        if reader.info.momentum > 0:
            raise MismatchError(
                where,
                expected="a recording of plain SGD, whose rows stand for themselves",
                found=f"momentum {reader.info.momentum:g}, whose rows need the row before",
                remedy="fit each recording by itself",
            )
        if reader.schema.active_checksum != first.schema.active_checksum or (
            reader.num_columns != first.num_columns or not np.array_equal(reader.active, first.active)
        ):
            raise MismatchError(
                where, expected=f"the unpruned parameters of {first.path}", found="others", remedy="leave it out"
            )
        for name in ("optimizer", "loss_change", "stride"):
            here, there = getattr(reader.info, name), getattr(first.info, name)
            if here != there:
                raise MismatchError(
                    where, expected=f"{name} {there}, as in {first.path}", found=f"{here}", remedy="leave it out"
                )
    parts = [{"digest": reader.digest, "rows": reader.num_rows, "seed": reader.info.seed} for reader in readers]
    starts = {reader.info.start_sha256 for reader in readers}
    return replace(
        first.info,
        start_sha256=first.info.start_sha256 if len(starts) == 1 else "",
        identity="",
        extra={**first.info.extra, "merged": parts},
    )
