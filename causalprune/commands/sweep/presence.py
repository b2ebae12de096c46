"""Which processes work at a sweep: each has a lease of its own as long as it does."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from causalprune.base.errors import LockedError
from causalprune.base.leases import Lease


class Presence(Lease):
    """The lease by which the other processes know of this one.

    Args:
        folder: Where those of all processes lie.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / f".{uuid4().hex}.lock")

    def is_alone(self) -> bool:
        """Whether no other process works there; a dead one doesn't. Ask while no other process can begin."""
        for path in self.path.parent.glob(".*.lock"):
            if path == self.path:
                continue
            try:
                with Lease(path):
                    pass
            except LockedError:
                return False
        return True
