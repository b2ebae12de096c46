"""A lease with a heartbeat, for work that several hosts share: others can continue the work of a dead host.

A lease is a file that its holder creates (only one process can), signs with its process and host, and touches every
:data:`BEAT_SECONDS`. It is taken over at once from a dead process on this host, and from a process on another host when
the file hasn't changed for :data:`DEAD_AFTER_SECONDS`. It needs no kernel locks.

A process that is killed between the creation and the signature leaves an empty file, of which nobody can tell whose it
is. It is taken over within seconds, because a living process signs at once and makes its signature visible everywhere.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import SoftFileLease, Timeout

from causalprune.base.errors import LockedError, storage_errors
from causalprune.base.files import append_if_empty, make_directory
from causalprune.base.locks import Lock

BEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 300.0

UNSIGNED_AFTER_SECONDS = 3.0
"""How long a file stays empty before it counts as one that nobody will sign."""

_UNSIGNED = b"unsigned=1\n"
"""What is added to an empty file, so that the library takes it over.

It takes over what isn't a signature and has stayed for two seconds, but never an empty file, because holders of its
early versions never signed. Whoever signs late isn't harmed: the signature goes over this, or this after the signature,
where it is one of the fields that are skipped.
"""


@dataclass
class _Watched:
    """The lease of another process.

    Attributes:
        lease: The library's, which knows when it first saw the file as it is.
        empty: Which empty file was seen, and since when.
    """

    lease: SoftFileLease
    empty: tuple[tuple[int, int], float] | None = None

    def is_unsigned(self, path: Path) -> bool:
        """Whether the file has been empty for too long to be signed by a living process."""
        with storage_errors(path, "read"):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                # Opened, because a network file system may answer from its memory otherwise.
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        if status.st_size:
            self.empty = None
            return False
        found, now = (status.st_ino, status.st_ctime_ns), time.monotonic()
        if self.empty is None or self.empty[0] != found:
            self.empty = found, now
        return now - self.empty[1] >= UNSIGNED_AFTER_SECONDS


_watched: dict[Path, _Watched] = {}
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
        watched = _watched.pop(self.path, None) or _Watched(
            SoftFileLease(
                self.path, lease_duration=DEAD_AFTER_SECONDS, heartbeat_interval=BEAT_SECONDS, thread_local=False
            )
        )
        lease = watched.lease
        # A first attempt may do no more than remove what a dead process left.
        for _ in range(2):
            with storage_errors(self.path, "lock"):
                try:
                    lease.acquire(blocking=False)
                except Timeout:
                    owner = lease.owner
                else:
                    self._sign(lease)
                    return
            if self.break_lock and owner is not None and owner.hostname.partition("?")[0] != socket.gethostname():
                lease.break_lock()
        if owner is None and watched.is_unsigned(self.path):
            append_if_empty(self.path, _UNSIGNED)
        _watched[self.path] = watched
        raise self._refusal("another process" if owner is None else self._described(owner.pid, owner.hostname))

    def _described(self, pid: int, host: str) -> str:
        """Who holds it; of another host also its last sign of life, by the clock of the file server."""
        host = host.partition("?")[0]
        who = f"process {pid} on {host}"
        if host == socket.gethostname():
            return who
        with suppress(OSError):
            beat = datetime.fromtimestamp(self.path.stat().st_mtime, UTC).isoformat(timespec="seconds")
            who += f", last sign of life {beat}, taken over {DEAD_AFTER_SECONDS / 60:g} minutes after it"
        return who

    def _sign(self, lease: SoftFileLease) -> None:
        """Make the signature visible to all hosts, and check that nobody took the file over before."""
        try:
            with storage_errors(self.path, "lock"), suppress(FileNotFoundError):
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            owner = lease.owner
            if owner is None or owner.token != lease.token:
                raise self._refusal("one that took over while this process slept")
        except BaseException:
            lease.release()
            raise
        self._lease = lease

    def _refusal(self, found: str) -> LockedError:
        return LockedError(f"lock {self.path}", expected="no other writer", found=found, remedy="wait until it ends")

    def _give_back(self) -> None:
        with storage_errors(self.path, "release"):
            self._lease.release()
