"""A lease with a heartbeat, for work that several hosts share: others can continue the work of a dead host.

A lease is a file that its holder creates (only one process can), signs with its process and host, and touches every
:data:`BEAT_SECONDS`. It is taken over at once from a dead process on this host, and from a process on another host when
the file hasn't changed for :data:`DEAD_AFTER_SECONDS`. It needs no kernel locks.
"""

from __future__ import annotations

import socket
from pathlib import Path

from filelock import SoftFileLease, Timeout

from causalprune.base.errors import LockedError, storage_errors
from causalprune.base.files import make_directory
from causalprune.base.locks import Lock

BEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 300.0

_watched: dict[Path, SoftFileLease] = {}
"""The leases of other processes, as this process first saw them."""


class Lease(Lock):
    """A lock with a heartbeat.

    Args:
        path: The file; its directory is created.
        break_lock: Take it from a process on another host even if that may still be running.
        patience: See :class:`~causalprune.base.locks.Lock`.

    Raises:
        LockedError: On entering, if another process holds it.
        StorageError: The file system refused.
    """

    def __init__(self, path: Path, *, break_lock: bool = False, patience: float = 0.0) -> None:
        self.path, self.break_lock, self.patience = path, break_lock, patience

    def _take(self) -> None:
        make_directory(self.path.parent)
        lease = _watched.pop(self.path, None) or SoftFileLease(
            self.path, lease_duration=DEAD_AFTER_SECONDS, heartbeat_interval=BEAT_SECONDS, thread_local=False
        )
        # A first attempt may do no more than remove what a dead process left.
        for _ in range(2):
            with storage_errors(self.path, "lock"):
                try:
                    lease.acquire(blocking=False)
                    self._lease = lease
                    return
                except Timeout:
                    owner = lease.owner
            if self.break_lock and owner is not None and owner.hostname.partition("?")[0] != socket.gethostname():
                lease.break_lock()
        _watched[self.path] = lease
        found = "another process" if owner is None else f"process {owner.pid} on {owner.hostname}"
        raise LockedError(f"lock {self.path}", expected="no other writer", found=found, remedy="wait until it ends")

    def _give_back(self) -> None:
        with storage_errors(self.path, "release"):
            self._lease.release()
