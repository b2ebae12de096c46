"""How a recording begins: its store, and that no other recorder takes the steps of the same network."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.base.progress import logger
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.prunable import lacking_layers
from causalprune.training.columns import Columns
from causalprune.training.ranks import DiscardingWriter, Ranks, Writer
from causalprune.trajectory import RecordingInfo, RecordingWriter, Store
from causalprune.trajectory.lifecycle import open_writers
from causalprune.trajectory.schema import EXPECTED_ROWS, RecordingSchema
from causalprune.trajectory.storage import locate
from causalprune.trajectory.store import require_disk

_claimed: weakref.WeakKeyDictionary[object, tuple[Writer, frozenset[int]]] = weakref.WeakKeyDictionary()
"""The writer of each recorder of this process, and the parameters whose steps it takes."""


def claim(recorder: object, writer: Writer, parameters: Iterable[nn.Parameter]) -> None:
    """Note that a recorder takes the steps of parameters, as long as it lives and its writer is open."""
    _claimed[recorder] = writer, frozenset(map(id, parameters))


def require_unclaimed(parameters: Iterable[nn.Parameter], store: str | Path | StoreUrl | Writer) -> None:
    """Refuse parameters that another recorder has, unless it records into the store that is about to be replaced.

    Raises:
        UsageError: Another recorder has them.
    """
    own = frozenset(map(id, parameters))
    replaced = open_writers(locate(store)) if isinstance(store, (str, Path, StoreUrl)) else []
    for writer, claimed in _claimed.values():
        if not writer.closed and writer not in replaced and not own.isdisjoint(claimed):
            raise UsageError(
                "model",
                expected="one that no other recorder has",
                found="one whose steps an open recorder takes",
                remedy="close that one first, or give it a copy of the model",
            )


def what_to_record(model: nn.Module, mask: Mask | None, prune: str | Sequence[str]) -> Mask:
    """The mask of a recording, whose parameters are recorded; a warning names what one of an earlier version lacks.

    Raises:
        UsageError: A pattern of ``prune`` that matches nothing.
        MismatchError: The mask of another model.
    """
    found = Mask.so_far(model, mask, prune)
    for said in lacking_layers(found.index, model, "the mask"):
        logger.warning("%s", said)
    return found


def new_recording(
    path: str | Path | StoreUrl,
    index: ParameterIndex,
    columns: Columns,
    info: RecordingInfo,
    ranks: Ranks,
    *,
    max_rows: int,
    codec: str,
    overwrite: bool,
    compress_threads: int | None,
) -> Writer:
    """Make a store and begin a recording in it, in the first process; if that fails, nothing is left behind.

    Args:
        path: Where, a path or an address in object storage.
        index: The parameters.
        columns: Which of them have a column, and who writes which.
        info: How the recording is made. If it says that γ has no causal reading, a warning does, too.
        ranks: The processes. Where the first one writes all, the others get a writer that drops its rows.
        max_rows: How many rows are expected; 0 if unknown.
        codec: A name of :data:`~causalprune.trajectory.names.CODECS`.
        overwrite: Whether a store that is there already is deleted first, with its fits, even if a writer of this
            process still records into it. Nothing but a store is ever deleted.
        compress_threads: Threads that compress; None for as many as the machine spares.

    Raises:
        UsageError: Something is there already, an unknown codec, or a size out of range; in the other processes,
            that the first one failed.
        DataError: No active parameter; or something that isn't a store, to be overwritten.
        LockedError: Another process is recording into the store.
        StorageError: Storage refused.
    """
    max_rows = int(max_rows) or EXPECTED_ROWS
    location, together = locate(path), columns.own is not None

    def check() -> None:
        RecordingSchema.choose(info, columns.active, max_rows, codec, None, f"{path}")
        require_disk(path, together)
        if not overwrite and location.exists():
            raise UsageError(
                f"{path}",
                expected="nothing there yet",
                found="something",
                remedy="choose another path, or pass overwrite=True to replace a store",
            )

    def begin() -> RecordingWriter:
        if overwrite and location.exists():
            for writer in open_writers(location):
                writer.abort()
            Store.delete(path)
        store = Store.create(path, index=index, model={}, start_sha256=info.start_sha256)
        options: dict[str, Any] = {"max_rows": max_rows, "codec": codec, "threads": compress_threads}
        try:
            return store.create_recording(info, columns.candidates, partners=partners, **options)
        except BaseException:
            Store.delete(path)
            raise

    ranks.first(check)
    # Only now, because a connection would be left open.
    partners = ranks.partners() if together else None
    try:
        writer = ranks.first(begin)
        if writer is None and partners is not None:
            store = Store.open(path)
            return store.join_recording(store.recordings[-1], partners, threads=compress_threads)
    except BaseException:
        if partners is not None:
            partners.close()
        raise
    if writer is None:
        return DiscardingWriter(columns.count)
    if warning := info.update_rule.no_causal_reading(f"recording {writer.path}"):
        logger.warning("%s", warning)
    return writer
