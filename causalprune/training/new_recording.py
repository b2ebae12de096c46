"""How a recording begins: its columns, its store, and that no other recorder takes the steps of the same network."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.base.progress import logger
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.prunable import lacking_layers
from causalprune.training.ranks import DiscardingWriter, Ranks, Writer
from causalprune.trajectory import RecordingInfo, RecordingWriter, Store
from causalprune.trajectory.lifecycle import open_writers
from causalprune.trajectory.schema import EXPECTED_ROWS, RecordingSchema
from causalprune.trajectory.storage import locate

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


def find_left_out(
    index: ParameterIndex, columns: str | Sequence[str], store: str | Path | StoreUrl | Writer
) -> tuple[str, ...]:
    """The names of the parameters that no pattern chooses; without patterns none, or those of the recording given.

    Raises:
        UsageError: A pattern that matches nothing.
    """
    if isinstance(store, RecordingWriter) and not columns:
        return store.info.left_out
    patterns = [columns] if isinstance(columns, str) else list(columns)
    chosen = {name for pattern in patterns for name in index.matching(pattern, "columns")}
    return tuple(entry.name for entry in index if patterns and entry.name not in chosen)


def new_recording(
    path: str | Path | StoreUrl,
    index: ParameterIndex,
    mask: Mask,
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
        mask: Which of them are kept; those that aren't left out have a column.
        info: How the recording is made. If it says that γ has no causal reading, a warning does, too.
        ranks: The processes. All but the first get a writer that drops its rows.
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
    keeps = mask.tensors().items()
    active = np.concatenate([keep.numpy().reshape(-1) & (name not in info.left_out) for name, keep in keeps])
    max_rows = int(max_rows) or EXPECTED_ROWS

    def begin() -> RecordingWriter:
        RecordingSchema.choose(info, active, max_rows, codec, None, f"{path}")
        location = locate(path)
        if overwrite and location.exists():
            for writer in open_writers(location):
                writer.abort()
            Store.delete(path)
        elif location.exists():
            raise UsageError(
                f"{path}",
                expected="nothing there yet",
                found="something",
                remedy="choose another path, or pass overwrite=True to replace a store",
            )
        store = Store.create(path, index=index, model={}, start_sha256=info.start_sha256)
        try:
            return store.create_recording(info, active, max_rows=max_rows, codec=codec, threads=compress_threads)
        except BaseException:
            Store.delete(path)
            raise

    writer = ranks.first(begin)
    if writer is None:
        return DiscardingWriter(int(np.count_nonzero(active)))
    if warning := info.update_rule.no_causal_reading(f"recording {writer.path}"):
        logger.warning("%s", warning)
    return writer
