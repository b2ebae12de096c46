"""Which processes work at a sweep: each has a lease of its own as long as it does."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from causalprune.base.errors import LockedError, storage_errors
from causalprune.base.files import remove_file
from causalprune.base.leases import DEAD_AFTER_SECONDS, Lease


class Presence(Lease):
    """The lease by which the other processes know of this one.

    Args:
        folder: Where those of all processes lie.
        break_lock: Take processes on other hosts for dead.
    """

    def __init__(self, folder: Path, *, break_lock: bool = False) -> None:
        super().__init__(folder / f".{uuid4().hex}.lock", break_lock=break_lock)

    def others(self) -> str:
        """Another process that works there, or may; empty if there is none. Ask while no other process can begin."""
        with storage_errors(self.path, "read"):
            os.utime(self.path)
            # By the clock of the file server, as the last sign of life of the others.
            now = self.path.stat().st_mtime
            for path in self.path.parent.glob(".*.lock"):
                if path == self.path:
                    continue
                with suppress(FileNotFoundError):
                    if now - path.stat().st_mtime > DEAD_AFTER_SECONDS:
                        remove_file(path, missing_ok=True)
                        continue
                try:
                    with Lease(path, break_lock=self.break_lock):
                        pass
                except LockedError as error:
                    return error.found
        return ""
