"""One writer a store in object storage: an object that only one of any number of contenders can create."""

from __future__ import annotations

from contextlib import suppress

from causalprune.base.errors import LockedError, StorageError
from causalprune.base.locks import MAX_RECORD_BYTES, Lock, LockHolder
from causalprune.trajectory.storage.object_client import ConflictError, NoAnswerError, ObjectClient

_ATTEMPTS = 10


class ObjectLock(Lock):
    """A lock that is an object with a record of its holder; it is taken over by changing exactly what was read.

    Args:
        client: The bucket.
        key: Key of the object.
        break_lock: Take the lock even from a process on another host, or an unreadable one. Never from a living
            process on this host.

    Raises:
        LockedError: On entering, when another process holds the lock, or this one already does.
        StorageError: Storage refused, or doesn't keep contenders apart.
    """

    def __init__(self, client: ObjectClient, key: str, *, break_lock: bool = False) -> None:
        self._client = client
        self._key = key
        self._break_lock = break_lock

    def _take(self) -> None:
        mine = LockHolder.current()
        data = mine.encode()
        for _ in range(_ATTEMPTS):
            holder, version = self._read()
            if holder != mine:
                if version is not None:
                    self._require_abandoned(holder)
                try:
                    self._client.put_if(self._key, data, version)
                except (ConflictError, NoAnswerError):
                    # Somebody was faster, or the answer was lost: what is there now tells.
                    continue
            try:
                self._require_conditions(data)
            except StorageError:
                with suppress(StorageError):
                    self._client.delete(self._key)
                raise
            self._mine = mine
            return
        raise LockedError(f"lock {self._url}", expected="an answer, or no other writer", found="neither")

    def _give_back(self) -> None:
        if self._read()[0] == self._mine:
            self._client.delete(self._key)

    def holder(self) -> LockHolder | None:
        """Who holds it, dead or alive; None when it is free.

        Raises:
            LockedError: The object isn't a record of ours.
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
            return
        if not holder.is_known_dead and (holder.is_here or not self._break_lock):
            remedy = "wait until it ends" + ("" if holder.is_here else "; if it is known to be dead, pass `break_lock`")
            raise LockedError(f"lock {self._url}", expected="no other writer", found=f"{holder}", remedy=remedy)

    def _unreadable(self) -> LockedError:
        return LockedError(
            f"lock {self._url}",
            expected="a record of the process that holds it",
            found="something else",
            remedy="if nothing writes there any more, pass `break_lock`",
        )

    def _require_conditions(self, data: bytes) -> None:
        """Check that storage doesn't just ignore the conditions on which everything here rests."""
        for version in (None, '"0123456789abcdef0123456789abcdef"'):
            try:
                self._client.put_if(self._key, data, version)
            except ConflictError:
                continue
            raise StorageError(
                f"{self._url}",
                expected="storage that honors If-None-Match and If-Match",
                found="storage that ignores " + ("If-None-Match" if version is None else "If-Match"),
                remedy="record to a disk and copy the store, or use storage with conditional writes",
            )

    @property
    def _url(self) -> str:
        return f"s3://{self._client.bucket}/{self._key}"
