"""A store's files in object storage: one object per file, with the same names as on a disk.

Object storage can't rename. While a folder is being built, moved or deleted, it contains an object named
:data:`MARKER`, which is put first and deleted last; to readers a folder with a marker doesn't exist.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

import numpy as np

from causalprune.base.errors import LockedError, StorageError
from causalprune.base.files import PARTIAL
from causalprune.base.locks import LockHolder
from causalprune.trajectory.storage.location import (
    LOCK,
    LOCKS,
    Buffer,
    Fence,
    Location,
    LogFile,
    OpenFile,
    ReplacedError,
    Sink,
)
from causalprune.trajectory.storage.object_client import ConflictError, NoAnswerError, ObjectClient, ObjectInfo
from causalprune.trajectory.storage.object_fence import ObjectLock, ObjectLog

MARKER = f"{PARTIAL}folder"

_ATTEMPTS = 5


@dataclass(frozen=True)
class ObjectLocation(Location):
    """An object, or the folder of all objects below a key.

    Attributes:
        client: The bucket.
        key: Without a slash at either end.
    """

    client: ObjectClient
    key: str

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.client, f"{self.key}/{name}")

    def __str__(self) -> str:
        return self.client.url(self.key)

    def is_folder(self) -> bool:
        """Whether there are objects besides locks, and no marker, which is among the first in the order of keys."""
        names = self._names_below(first=10)
        return MARKER not in names and any(name not in LOCKS for name in names)

    def is_file(self) -> bool:
        """Whether there is an object."""
        return self.client.head(self.key) is not None

    def children(self) -> list[str]:
        """Names of folders and objects."""
        folders, files = self.client.children(self.key)
        return [*folders, *files]

    def sizes(self) -> dict[str, int]:
        """Names and lengths of the objects in the folder."""
        return self.client.children(self.key)[1]

    def require_contained(self) -> None:
        """Object storage has no links."""

    def free_bytes(self) -> int | None:
        """Unknown."""
        return None

    def _read(self, max_bytes: int) -> bytes:
        return self.client.read(self.key, max_bytes)[0]

    @contextmanager
    def open(self, version: Hashable = None) -> Iterator[OpenFile]:
        """Read parts of the object, all of the same version."""
        yield _OpenObject(self, version if isinstance(version, str) else None)

    def write(self, data: bytes) -> None:
        """Put the object, which is one atomic step."""
        self.client.put(self.key, data)

    @contextmanager
    def writing(self, fence: Fence) -> Iterator[Sink]:
        """Collect the object in memory and put it, if the existing one is still the version seen in the beginning.

        If it isn't, another writer replaced it, and the fence decides which of the two goes on.
        """
        info = self.client.head(self.key)
        if info is not None:
            fence()
        sink = BytesIO()
        yield sink
        for attempt in range(_ATTEMPTS):
            try:
                self.client.put_if(self.key, sink.getbuffer(), None if info is None else info.version)
                return
            except (ConflictError, NoAnswerError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise StorageError(
                        f"cannot write {self}",
                        found="another process changes it every time",
                        remedy="end the other one",
                    ) from error
                info = self.client.head(self.key)
                fence()

    def remove(self) -> None:
        """Delete the object."""
        self.client.delete(self.key)

    def log(self) -> LogFile:
        """The object as a log."""
        return ObjectLog(self.client, self.key)

    def lock(self, *, break_lock: bool = False, patient: bool = False) -> ObjectLock:
        """The object as a lock; nothing ever waits for it."""
        del patient
        return ObjectLock(self.client, self.key, break_lock=break_lock)

    def holder(self) -> LockHolder | None:
        """Who holds it."""
        return ObjectLock(self.client, self.key).holder()

    def making(self, *, break_lock: bool = False) -> AbstractContextManager[object]:
        """The lock of the store to be made here."""
        return (self / LOCK).lock(break_lock=break_lock)

    def zarr_store(self) -> Any:
        """The keys below this one, for zarr."""
        from zarr.storage import ObjectStore, StorePath

        return StorePath(ObjectStore(self.client.store, read_only=True), self.key)

    def prepare(self) -> None:
        """Send a request, so that unreachable storage shows at once; :meth:`build` removes leftovers itself."""
        self._names_below(first=1)

    def make_folder(self) -> None:
        """Needs nothing: folders exist with their objects."""

    def build(self, fill: Callable[[Self], None]) -> None:
        """Put a marker, fill the folder, delete the marker."""
        if self.is_folder():
            raise LockedError(f"{self}", expected="nothing there yet", found="what another writer put there meanwhile")
        self._mark()
        try:
            self._empty()
            fill(self)
        except BaseException:
            with suppress(StorageError):
                self.remove_folder()
            raise
        self._unmark()

    def replace(self, aside: Self, fill: Callable[[Self], None]) -> None:
        """Move the folder aside, build it anew, delete the old one."""
        if self.is_folder():
            self.move(aside)
        self.build(fill)
        if aside.is_folder():
            aside.remove_folder()

    def move(self, target: Self) -> None:
        """Copy every object, then delete them."""

        def copy(target: Self) -> None:
            for info in self.client.below(self.key):
                self.client.copy(info.key, target.key + info.key[len(self.key) :])

        target.build(copy)
        self.remove_folder()

    def remove_folder(self) -> None:
        """Put a marker, delete everything else except a store's lock, delete the marker."""
        self._mark()
        self._empty()
        self._unmark()

    def clear_leftovers(self) -> None:
        """Delete the folders with a marker."""
        for name in self.client.children(self.key)[0]:
            child = self / name
            if MARKER in child._names_below(first=10):
                child.remove_folder()

    def _names_below(self, first: int) -> list[str]:
        """Names, relative to this folder, of its first objects."""
        return [info.key[len(self.key) + 1 :] for info in self.client.below(self.key, first)]

    def _mark(self) -> None:
        self.client.put((self / MARKER).key, b"")

    def _unmark(self) -> None:
        self.client.delete((self / MARKER).key)

    def _empty(self) -> None:
        kept = {(self / name).key for name in (MARKER, LOCK)}
        self.client.delete(*(info.key for info in self.client.below(self.key) if info.key not in kept))


class _OpenObject:
    run_bytes = 2**24
    """A request takes as long as transferring some megabytes."""

    def __init__(self, location: ObjectLocation, version: str | None) -> None:
        self._location = location
        self._version = version
        self._info: ObjectInfo | None = None

    @property
    def _known(self) -> ObjectInfo:
        if self._info is None:
            self._info = self._location.client.head(self._location.key)
            if self._info is None:
                raise FileNotFoundError(f"{self._location}")
        return self._info

    @property
    def size(self) -> int:
        return self._known.size

    @property
    def version(self) -> Hashable:
        return self._version or self._known.version

    def read(self, begin: int, end: int, buffer: Buffer) -> np.ndarray:
        del buffer
        location = self._location
        version = self._version or self._known.version
        try:
            data, _ = location.client.get(location.key, (begin, end), version=version)
        except (ConflictError, FileNotFoundError) as error:
            raise ReplacedError(
                f"{location}", expected="an object that stays while it is read", found="another one, or none"
            ) from error
        if len(data) != end - begin:
            remedy = "check the network, then run the same command again"
            expected = f"{end - begin} bytes at {begin}"
            raise StorageError(f"cannot read {location}", expected=expected, found=f"{len(data)}", remedy=remedy)
        return np.frombuffer(data, np.uint8)

    def tail(self, length: int) -> np.ndarray:
        try:
            data, self._info = self._location.client.get(self._location.key, suffix=length)
        except StorageError:
            # An empty object has no range to ask for.
            if self.size == 0:
                return np.empty(0, np.uint8)
            raise
        return np.frombuffer(data, np.uint8)
