"""A store that is made for one recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from causalprune.base.paths import StoreUrl
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.lifecycle import open_writers
from causalprune.trajectory.schema import EXPECTED_ROWS, RecordingInfo, RecordingSchema
from causalprune.trajectory.storage import locate
from causalprune.trajectory.store import Store
from causalprune.trajectory.writer import RecordingWriter


def new_store(
    path: str | Path | StoreUrl,
    index: ParameterIndex,
    info: RecordingInfo,
    active: np.ndarray,
    *,
    max_rows: int = EXPECTED_ROWS,
    codec: str = "balanced",
    overwrite: bool = False,
    compress_threads: int | None = None,
) -> RecordingWriter:
    """Make a store and begin a recording in it; if that fails, nothing is left behind.

    Args:
        path: Where, a path or an address in object storage.
        index: The parameters.
        info: How the recording is made.
        active: (P,) bool, the parameters to record.
        max_rows: How many rows are expected.
        codec: A name of :data:`~causalprune.trajectory.names.CODECS`.
        overwrite: Whether a store that is there already is deleted first, with its fits, even if a writer of this
            process still records into it. Nothing but a store is ever deleted.
        compress_threads: Threads that compress; None for as many as the machine spares.

    Raises:
        UsageError: Something is there already, an unknown codec, or a size out of range.
        DataError: No active parameter; or something that isn't a store, to be overwritten.
        LockedError: Another process is recording into the store.
        StorageError: Storage refused.
    """
    RecordingSchema.choose(info, active, max_rows, codec, None, f"{path}")
    location = locate(path)
    if overwrite and location.exists():
        for writer in open_writers(location):
            writer.abort()
        Store.delete(path)
    store = Store.create(path, index=index, model={}, start_sha256=info.start_sha256)
    try:
        return store.create_recording(info, active, max_rows=max_rows, codec=codec, threads=compress_threads)
    except BaseException:
        Store.delete(path)
        raise
