"""One writer an artefact: a lock file that says who holds it, and that outlives no process on the same host.

The lock is a file with one JSON record: host, boot, process namespace, process, its start time, and a token. It comes
into being complete and all at once (a hard link, which works on network file systems too).

A lock whose process is dead is taken over by exactly one of any number of contenders: the right to replace the lock
with token *t* belongs to whoever creates the claim file ``<lock>.claim-t``, and after creating it must find *t* still
in the lock. Replacing is one rename, so the lock is never absent in between. A claim whose owner died is itself taken
over in the same way.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Set
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from causalprune.errors import LockedError, StorageError
from causalprune.files import PARTIAL, remove_file, rename, storage_errors, temporary_beside, write_atomic

_MAX_RECORD_BYTES = 4096
_UNREADABLE = "unreadable"
"""Stands for the token of a record that can't be read."""


@dataclass(frozen=True)
class LockHolder:
    """The process that holds a lock.

    Attributes:
        host: Its host name.
        boot: The kernel's boot identifier; another one means that the host restarted.
        namespace: Its process namespace: process numbers of another one mean nothing here.
        pid: Its process number.
        start: When it started, in clock ticks since the boot, so that a reused number isn't mistaken for it.
        since: When it took the lock, ISO 8601.
        token: A random name for this very lock.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    start: str
    since: str
    token: str

    @classmethod
    def current(cls) -> LockHolder:
        """Describe this process, with a new token."""
        return cls(
            host=socket.gethostname(),
            boot=_read_text(Path("/proc/sys/kernel/random/boot_id")),
            namespace=_process_namespace(),
            pid=os.getpid(),
            start=_start_time(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            token=secrets.token_hex(8),
        )

    @property
    def is_known_dead(self) -> bool:
        """Whether the process has certainly ended; of another host that can't be known."""
        if self.host != socket.gethostname():
            return False
        if self.boot != _read_text(Path("/proc/sys/kernel/random/boot_id")):
            return True
        return self.namespace == _process_namespace() and self.start != _start_time(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def lock_holder(path: Path) -> LockHolder | None:
    """Who holds the lock at ``path``, dead or alive; ``None`` when it is free.

    Raises:
        LockedError: The file there isn't a record of ours, so that nobody can be named.
    """
    with storage_errors(path, "read"):
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_RECORD_BYTES)
        except FileNotFoundError:
            return None
    return parse_holder(data, f"lock {path}")


def holder_token(path: Path) -> str | None:
    """What tells the lock at ``path`` from any other that was or will be there; ``None`` when it is free."""
    try:
        holder = lock_holder(path)
    except LockedError:
        return _UNREADABLE
    return None if holder is None else holder.token


def parse_holder(data: bytes, name: str) -> LockHolder:
    """Read the record of a lock.

    Args:
        data: Its bytes.
        name: The lock, for the error message.

    Raises:
        LockedError: It isn't a record of ours.
    """
    try:
        record = json.loads(data)
        types = {"pid": int}
        if set(record) != {f.name for f in fields(LockHolder)}:
            raise ValueError
        if not all(type(value) is types.get(key, str) for key, value in record.items()):
            raise ValueError
        return LockHolder(**record)
    except (ValueError, TypeError) as error:
        raise LockedError(
            name,
            expected="a record of the process that holds it",
            found=repr(data[:40]),
            remedy="if nothing writes there any more, pass --break-lock",
        ) from error


def require_abandoned(holder: LockHolder, name: str, *, break_lock: bool) -> None:
    """Check that a lock may be taken from its holder: a dead process, or with leave one of another host.

    Args:
        holder: Who holds it.
        name: The lock, for the error message.
        break_lock: Whether there is leave.

    Raises:
        LockedError: It may not.
    """
    here = holder.host == socket.gethostname() and holder.namespace == _process_namespace()
    if holder.is_known_dead or (break_lock and not here):
        return
    raise LockedError(
        name,
        expected="no other writer",
        found=f"{holder}",
        remedy="wait until it ends" if here else "wait until it ends; if it is known to be dead, pass --break-lock",
    )


class Lock(ABC):
    """A context manager that is the only one of its kind while it is entered."""

    @abstractmethod
    def acquire(self) -> None:
        """Take the lock, or raise LockedError at once."""

    @abstractmethod
    def release(self) -> None:
        """Give the lock back; a lock that was broken meanwhile is left to its new holder."""

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class FileLock(Lock):
    """A lock that is a file.

    Args:
        path: The lock file; its directory must exist.
        break_lock: Take the lock even from a process on another host, or an unreadable one. Never from a living
            process on this host.
        ended: What :func:`holder_token` said of holders on other hosts that are known to have ended: the lock is taken
            from one of these, and from no one who took it over meanwhile.

    Raises:
        LockedError: On entering, when another process holds the lock, or this one already does.
        StorageError: The file system refused.
    """

    def __init__(self, path: Path, *, break_lock: bool = False, ended: Set[str] = frozenset()) -> None:
        self.path = Path(path)
        self.break_lock = break_lock
        self.ended = ended
        self._mine: LockHolder | None = None

    def acquire(self) -> None:
        """Take the lock, or raise at once."""
        mine = LockHolder.current()
        record = temporary_beside(self.path)
        try:
            try:
                write_atomic(record, json.dumps(asdict(mine), sort_keys=True).encode())
            except StorageError as error:
                raise StorageError(f"cannot lock {self.path}", found=error.found, remedy=error.remedy) from error
            with storage_errors(self.path, "lock"):
                while not _link(record, self.path):
                    if self._take_over(record):
                        break
        finally:
            with suppress(StorageError):
                remove_file(record, missing_ok=True)
        self._mine = mine
        self._remove_abandoned()

    def release(self) -> None:
        """Give the lock back; a lock that was broken meanwhile is left to its new holder."""
        mine, self._mine = self._mine, None
        # A forked child inherits this object, but not the lock.
        if mine is None or mine.pid != os.getpid():
            return
        with suppress(LockedError):
            if lock_holder(self.path) == mine:
                remove_file(self.path, missing_ok=True)

    def _take_over(self, record: Path) -> bool:
        """Replace a lock that nobody holds; false when it changed meanwhile and the whole thing starts again."""
        stale = self._abandoned(self.path)
        if stale is None:
            return False
        claims: list[Path] = []
        token = stale
        while True:
            claims.append(self.path.with_name(f"{self.path.name}.claim-{token}"))
            if _link(record, claims[-1]):
                break
            owner = self._abandoned(claims[-1])
            if owner is None:
                return False
            token = owner
        try:
            taken = self._abandoned(self.path) == stale
            if taken:
                # A second file, because renaming one hard link over another of the same file does nothing.
                replacement = temporary_beside(self.path)
                write_atomic(replacement, record.read_bytes())
                rename(replacement, self.path)
        finally:
            for claim in reversed(claims):
                remove_file(claim, missing_ok=True)
        return taken

    def _remove_abandoned(self) -> None:
        """Remove what contenders left that died before they got the lock."""
        name = self.path.name.lstrip(".")
        for entry in list(self.path.parent.iterdir()):
            # A record is first written under a temporary name of its own temporary name: a dot more each.
            if entry.name.lstrip(".").startswith((f"{name}{PARTIAL}", f"{name}.claim-")):
                try:
                    holder = lock_holder(entry)
                    dead = holder is not None and holder.is_known_dead
                except LockedError:
                    # Cut short in the middle of being written; its name says by which process.
                    number = entry.name.partition(PARTIAL)[2].partition("-")[0]
                    dead = number.isdigit() and not _start_time(int(number))
                if dead:
                    with suppress(StorageError):
                        remove_file(entry, missing_ok=True)

    def _abandoned(self, path: Path) -> str | None:
        """Token of a lock or claim that may be taken over; ``None`` when there is none.

        Raises:
            LockedError: It belongs to somebody.
        """
        try:
            holder = lock_holder(path)
        except LockedError:
            if self.break_lock or _UNREADABLE in self.ended:
                return _UNREADABLE
            raise
        if holder is None:
            return None
        require_abandoned(holder, f"lock {self.path}", break_lock=self.break_lock or holder.token in self.ended)
        return holder.token


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def _start_time(pid: int) -> str:
    """Start time of a process in clock ticks since the boot; empty when there is no such process."""
    text = _read_text(Path(f"/proc/{pid}/stat"))
    # The command, in parentheses, may hold spaces and parentheses itself; state is the field behind it.
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
