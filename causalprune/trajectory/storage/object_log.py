"""A log in object storage: an object that is written anew with each line, if nobody else has changed it meanwhile."""

from __future__ import annotations

import time

from causalprune.base.errors import CorruptError, DataError, LockedError
from causalprune.trajectory.storage.location import LogFile
from causalprune.trajectory.storage.object_client import ConflictError, NoAnswerError, ObjectClient

_ATTEMPTS = 5
_WAIT_SECONDS = 0.2


class ObjectLog(LogFile):
    """Knows the log as it read or wrote it last, and changes that version only.

    An answer can be lost on its way: then the object says whether the change was made. That its bytes are those that
    were to be written means that this writer wrote them only if no other one writes the same, hence the condition on
    every writer's first change.
    """

    fenced = True

    def __init__(self, client: ObjectClient, key: str) -> None:
        self._client = client
        self._key = key
        self._data = b""
        self._version: str | None = None

    def read(self, max_bytes: int) -> bytes:
        """All of it; what is appended later goes behind this."""
        try:
            data, info = self._client.get(self._key, limit=max_bytes)
        except FileNotFoundError as error:
            raise DataError(self._url, expected="a file", found="nothing") from error
        if info.size > max_bytes:
            raise CorruptError(self._url, expected=f"at most {max_bytes} bytes", found=f"{info.size}")
        self._data, self._version = bytes(data), info.version
        return self._data

    def append(self, line: str) -> None:
        """Write the object anew, with one line more."""
        whole = self._data[: self._data.rfind(b"\n") + 1]
        self.replace(whole + line.encode() + b"\n")

    def replace(self, data: bytes) -> None:
        """Write the object anew."""
        for attempt in range(_ATTEMPTS):
            try:
                self._version = self._client.put_if(self._key, data, self._version)
                self._data = data
                return
            except (ConflictError, NoAnswerError) as error:
                if self._is_written(data, error):
                    return
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_WAIT_SECONDS * 2**attempt)

    def _is_written(self, data: bytes, error: Exception) -> bool:
        """Whether a change whose answer says otherwise was made all the same."""
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
        """Ask for the version that is there."""
        info = self._client.head(self._key)
        if info is None or info.version != self._version:
            raise self._lost()

    def _lost(self) -> LockedError:
        return LockedError(
            self._url,
            expected="the lines that this process wrote",
            found="those of another writer",
            remedy="it took the lock with `break_lock`, or the store was deleted: let it go on; nothing it has is lost",
        )

    @property
    def _url(self) -> str:
        return f"s3://{self._client.bucket}/{self._key}"
