"""What keeps the writers of a store in object storage apart: a lock, and a log that only its latest writer can change.

Both are single objects, written on the condition that the object is still the version that was read last.
"""

from __future__ import annotations

import time
from contextlib import suppress

from causalprune.base.errors import LockedError, StorageError
from causalprune.base.locks import MAX_RECORD_BYTES, Lock, LockHolder
from causalprune.trajectory.storage.object_client import ConflictError, NoAnswerError, ObjectClient

_LOCK_ATTEMPTS = 10
_LOG_ATTEMPTS = 5
_WAIT_SECONDS = 0.2


class ObjectLock(Lock):
    """A lock that is an object with a record of its holder; only one of any number of contenders can create it.

    Args:
        client: The bucket.
        key: Key of the object.
        break_lock: Take the lock even from a process on another host, or an unreadable one. Never from a living
            process on this host.

    Raises:
        LockedError: On entering, when another process holds the lock, or this one already does.
        StorageError: Storage refused or doesn't answer, or ignores conditions on writes.
    """

    def __init__(self, client: ObjectClient, key: str, *, break_lock: bool = False) -> None:
        self._client = client
        self._key = key
        self._break_lock = break_lock
        self._subject = f"lock {client.url(key)}"

    def _take(self) -> None:
        mine = LockHolder.current()
        data = mine.encode()
        last: Exception | None = None
        for _ in range(_LOCK_ATTEMPTS):
            holder, version = self._read()
            if holder != mine:
                if version is not None:
                    self._require_abandoned(holder)
                try:
                    self._client.put_if(self._key, data, version)
                except (ConflictError, NoAnswerError) as error:
                    # Somebody was faster, or the answer was lost: reading the object again tells.
                    last = error
                    continue
            try:
                self._require_conditions(data)
            except StorageError:
                with suppress(StorageError):
                    self._client.delete(self._key)
                raise
            self._mine = mine
            return
        if isinstance(last, NoAnswerError):
            raise last
        raise LockedError(self._subject, expected="no other writer", found="one that is faster every time")

    def _give_back(self) -> None:
        if self._read()[0] == self._mine:
            self._client.delete(self._key)

    def holder(self) -> LockHolder | None:
        """Who holds the lock, dead or alive; None when it is free.

        Raises:
            LockedError: The object isn't a record of a holder.
        """
        holder, version = self._read()
        if holder is None and version is not None:
            raise self._unreadable()
        return holder

    def _read(self) -> tuple[LockHolder | None, str | None]:
        """The holder, None if it can't be read; the version of the object, None if there is none."""
        try:
            data, info = self._client.get(self._key, limit=MAX_RECORD_BYTES)
        except FileNotFoundError:
            return None, None
        return LockHolder.parse(bytes(data)), info.version

    def _require_abandoned(self, holder: LockHolder | None) -> None:
        if holder is None:
            if not self._break_lock:
                raise self._unreadable()
        elif not holder.is_known_dead and (holder.is_here or not self._break_lock):
            remedy = "wait until it ends" + ("" if holder.is_here else "; if it is known to be dead, pass `break_lock`")
            raise LockedError(self._subject, expected="no other writer", found=f"{holder}", remedy=remedy)

    def _unreadable(self) -> LockedError:
        return LockedError(
            self._subject,
            expected="a record of the process that holds it",
            found="something else",
            remedy="if nothing writes there any more, pass `break_lock`",
        )

    def _require_conditions(self, data: bytes) -> None:
        """Check that storage doesn't ignore the conditions, on which everything here relies."""
        for version in (None, '"0123456789abcdef0123456789abcdef"'):
            try:
                self._client.put_if(self._key, data, version)
            except ConflictError:
                continue
            raise StorageError(
                self._client.url(self._key),
                expected="storage that honors If-None-Match and If-Match",
                found="storage that ignores " + ("If-None-Match" if version is None else "If-Match"),
                remedy="record to a disk and copy the store, or use storage with conditional writes",
            )


class ObjectLog:
    """A log that is one object; each change writes it anew if it is still the version read or written last.

    The answer to a write can get lost. Then the object is read: if it has the bytes that were to be written, they must
    be this writer's, because every writer's first change is unique.
    """

    fenced = True

    def __init__(self, client: ObjectClient, key: str) -> None:
        self._client = client
        self._key = key
        self._data = b""
        self._version: str | None = None

    def read(self, max_bytes: int) -> bytes:
        """Read the whole log; later appends extend what was read."""
        self._data, info = self._client.read(self._key, max_bytes)
        self._version = info.version
        return self._data

    def append(self, line: str) -> None:
        """Write the object anew, with one more line."""
        whole = self._data[: self._data.rfind(b"\n") + 1]
        self.replace(whole + line.encode() + b"\n")

    def replace(self, data: bytes) -> None:
        """Write the object anew."""
        for attempt in range(_LOG_ATTEMPTS):
            try:
                self._version = self._client.put_if(self._key, data, self._version)
                self._data = data
                return
            except (ConflictError, NoAnswerError) as error:
                if self._is_written(data, error):
                    return
                if attempt == _LOG_ATTEMPTS - 1:
                    raise
                time.sleep(_WAIT_SECONDS * 2**attempt)

    def _is_written(self, data: bytes, error: Exception) -> bool:
        """Whether a write took effect although it was answered with ``error``."""
        try:
            found, info = self._client.get(self._key)
        except FileNotFoundError:
            raise self._lost() from error
        if bytes(found) == data:
            self._data, self._version = data, info.version
            return True
        if info.version != self._version or isinstance(error, ConflictError):
            raise self._lost() from error
        return False

    def require_mine(self) -> None:
        """Check the version of the object."""
        info = self._client.head(self._key)
        if info is None or info.version != self._version:
            raise self._lost()

    def _lost(self) -> LockedError:
        return LockedError(
            self._client.url(self._key),
            expected="the lines that this process wrote",
            found="those of another writer",
            remedy="it took the lock with `break_lock`, or the store was deleted: let it go on; nothing it has is lost",
        )
