"""Writers that nobody has closed yet: when the interpreter ends, what they were given is committed."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING

from causalprune.base.progress import logger
from causalprune.trajectory.storage.location import Location

if TYPE_CHECKING:
    from causalprune.trajectory.writer import RecordingWriter

_open: dict[RecordingWriter, int] = {}
"""How many rows the recording of each had when it was opened."""


def opened(writer: RecordingWriter) -> None:
    """Remember a writer until :func:`closed`."""
    _open[writer] = writer.rows_appended


def closed(writer: RecordingWriter) -> None:
    """Forget a writer."""
    _open.pop(writer, None)


def abort_writers(store: Location) -> None:
    """Abort the writers of this process that record into a store which is about to be replaced."""
    inside = f"{store.resolve()}/"
    for writer in list(_open):
        if f"{writer.path.resolve()}".startswith(inside):
            writer.abort()


@atexit.register
def _close_all() -> None:
    # Threads that run already still run here, and each writer has its own; no new one can be started any more.
    for writer, before in list(_open.items()):
        rows, path = writer.rows_appended, writer.path
        try:
            writer.close()
        except Exception as error:
            logger.warning("recording %s wasn't closed, and its last rows are lost: %s", path, error)
            continue
        if rows > before:
            logger.warning(
                "recording %s wasn't closed: its %d rows are committed, but it isn't marked as finished; use the "
                "recorder in a with statement, or call its close()",
                path,
                rows,
            )


# A fork has a copy of the writer, but not its thread; the rows are the parent's to write.
os.register_at_fork(after_in_child=_open.clear)
