"""One writer per artifact: a kernel lock on a file, in which its holder says who it is.

The kernel frees the lock when its process dies, so locks never become stale. A killed process leaves a file that nobody
holds; the next holder takes it, writes itself into it, and deletes it at the end. Only its holder deletes a file, and a
lock is valid only while its file still has its name, so nobody holds a deleted file.

The record of the holder is used in messages, and for locks in object storage, where no kernel knows whether the holder
is alive.
"""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Self

from filelock import FileLock as KernelLock
from filelock import Timeout

from causalprune.base.errors import LockedError, StorageError, storage_errors
from causalprune.base.files import remove_file, rewrite
from causalprune.base.progress import LOG_EVERY_SECONDS, logger
from causalprune.base.signals import stop_signals

MAX_RECORD_BYTES = 4096

SAID_AFTER_SECONDS = 3.0
"""How long a process waits for others without a word."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")

PATIENCE_OF_A_REQUEUED_JOB = 600.0
"""In seconds. A file server may remember the locks of a dead node for some minutes."""


@dataclass(frozen=True)
class LockHolder:
    """The process that holds a lock.

    Attributes:
        host: Its host name.
        boot: The kernel's boot identifier; another one means that the host restarted.
        namespace: Its process namespace; process numbers of another one mean nothing here.
        pid: Its process number.
        start: When it started, in clock ticks since the boot, to recognize reused process numbers.
        since: When it took the lock, ISO 8601.
        token: A random name of this acquisition.
        job: Its SLURM job, if any.
        restarts: How often that job had been queued again.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    start: str
    since: str
    token: str
    job: str = ""
    restarts: str = ""

    @classmethod
    def current(cls) -> LockHolder:
        """Describe this process, with a new token."""
        return cls(
            host=socket.gethostname(),
            boot=_read_text(_BOOT),
            namespace=_process_namespace(),
            pid=os.getpid(),
            start=_start_time(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            token=token_hex(8),
            job=os.environ.get("SLURM_JOB_ID", ""),
            restarts=os.environ.get("SLURM_RESTART_COUNT", ""),
        )

    @classmethod
    def parse(cls, data: bytes) -> LockHolder | None:
        """Read what :meth:`encode` wrote; None if it is anything else."""
        try:
            record = {"job": "", "restarts": "", **json.loads(data)}
            expected = {f.name: int if f.name == "pid" else str for f in fields(cls)}
            return cls(**record) if {key: type(value) for key, value in record.items()} == expected else None
        except (ValueError, TypeError, RecursionError):
            return None

    def encode(self) -> bytes:
        """The record as JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this host and in this process namespace."""
        return self.host == socket.gethostname() and self.namespace == _process_namespace()

    @property
    def is_known_dead(self) -> bool:
        """Whether the process has certainly ended; for another host only SLURM can know it.

        SLURM starts a job again when its earlier start has ended, or the node that it was on is down.
        """
        rebooted = self.host == socket.gethostname() and self.boot != _read_text(_BOOT)
        same_job = self.job != "" and self.job == os.environ.get("SLURM_JOB_ID")
        started_again = same_job and self.restarts != os.environ.get("SLURM_RESTART_COUNT", "")
        return rebooted or started_again or (self.is_here and self.start != _start_time(self.pid))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}" + (f", SLURM job {self.job}" * bool(self.job))


def lock_holder(path: Path) -> LockHolder | None:
    """The holder that the lock at ``path`` names, dead or alive; None if there is no lock or it names nobody."""
    with storage_errors(path, "read"), suppress(FileNotFoundError), path.open("rb") as file:
        return LockHolder.parse(file.read(MAX_RECORD_BYTES))
    return None


class Lock(ABC):
    """A context manager that only one process at a time can enter.

    Attributes:
        patience: How many seconds to wait for another holder; infinite for locks that are only held for a moment.
    """

    patience = 0.0
    _pid: int | None = None

    @abstractmethod
    def _take(self) -> None:
        """Take the lock, or raise LockedError at once."""

    @abstractmethod
    def _give_back(self) -> None:
        """Free the lock, unless it was broken meanwhile and has a new holder."""

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LockedError: Another process holds it, or this one already does.
            StorageError: Storage refused.
            InterruptedStage: A signal arrived while waiting.
        """
        forever, start = math.isinf(self.patience), time.monotonic()
        next_line = start + (SAID_AFTER_SECONDS if forever else 0.0)
        while True:
            try:
                self._take()
                self._pid = os.getpid()
                return
            except LockedError as error:
                now = time.monotonic()
                if now - start >= self.patience:
                    raise
                if now >= next_line:
                    logger.info("waiting for the lock of %s (%s)", error.found, error.subject)
                    next_line = now + LOG_EVERY_SECONDS
                with stop_signals() as stop:
                    stop.check()
                    time.sleep(0.05 if forever else 1.0)

    def release(self) -> None:
        """Free the lock. In a forked child, which doesn't hold it, this does nothing."""
        pid, self._pid = self._pid, None
        if pid == os.getpid():
            self._give_back()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class FileLock(Lock):
    """A kernel lock (flock), freed however its process ends; forked children don't keep it.

    Args:
        path: The lock file; its directory must exist.
        patience: See :class:`Lock`. By default 0, but in a job that SLURM has requeued as long as a file server may
            remember the locks of a dead node.

    Raises:
        LockedError: On entering, if another process holds the lock, or this one already does.
        StorageError: The file system refused, or has no locks.
    """

    def __init__(self, path: Path, *, patience: float | None = None) -> None:
        self.path = Path(path)
        requeued = os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
        self.patience = (PATIENCE_OF_A_REQUEUED_JOB if requeued else 0.0) if patience is None else patience

    def _take(self) -> None:
        mine = LockHolder.current()
        sign = partial(_sign, self.path, mine)
        # Without the soft fallback, a file isn't a lock just because it exists.
        kernel = KernelLock(self.path, thread_local=False, blocking=False, fallback_to_soft=False, on_acquired=sign)
        with storage_errors(self.path, "lock"):
            if not self.path.parent.is_dir():
                # The library would create it.
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            try:
                kernel.acquire()
            except Timeout:
                raise self._refusal() from None
            except OSError as error:
                if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    remove_file(self.path, missing_ok=True)
                raise
        self._mine, self._kernel = mine, kernel

    def _refusal(self) -> LockedError:
        holder = lock_holder(self.path)
        remedy = "wait until it ends"
        if holder is not None and holder.host != socket.gethostname():
            remedy += f"; if that host is known to be dead, delete {self.path.name}"
        # The holder may be about to write its name, or to free the lock.
        found = f"{holder or 'another process'}"
        return LockedError(f"lock {self.path}", expected="no other writer", found=found, remedy=remedy)

    def _give_back(self) -> None:
        try:
            if lock_holder(self.path) == self._mine:
                remove_file(self.path, missing_ok=True)
        finally:
            self._kernel.release()


def _sign(path: Path, mine: LockHolder, descriptor: int) -> None:
    """Write the holder into a file that was just locked, unless it has been deleted or replaced meanwhile."""
    if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
        raise Timeout(f"{path}")
    try:
        rewrite(descriptor, mine.encode())
    except BaseException:
        with suppress(StorageError):
            remove_file(path, missing_ok=True)
        raise


def _start_time(pid: int) -> str:
    """Start time of a process in clock ticks since the boot; empty when there is no such process."""
    text = _read_text(Path(f"/proc/{pid}/stat"))
    # The command, in parentheses, may contain spaces and parentheses; the state is the field after it.
    state, *rest = text.rpartition(")")[2].split() or [""]
    return "" if state in ("", "Z", "X") else rest[18]


def _process_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path but a name such as pid:[4026531836]
    except OSError:
        return ""


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
