"""What a store needs of the place where its files lie: one interface for a disk and for object storage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

import numpy as np

from causalprune.base.errors import CorruptError
from causalprune.base.json_files import MAX_JSON_BYTES, decode_json, encode_json
from causalprune.base.locks import Lock, LockHolder

REMEDY = "restore the file from a copy, or record again"
"""Of a damaged or missing file."""

LOCK = ".lock"
"""Held by the one process that records into a store."""

FITS_LOCK = ".fits-lock"
"""Held by whoever adds, replaces or deletes a fit."""

LOCKS = (LOCK, FITS_LOCK)

Fence = Callable[[], None]
"""Raises LockedError if another writer has taken over."""

Buffer = Callable[[int], np.ndarray]
"""Hands out (n,) uint8 to read into."""


class ReplacedError(CorruptError):
    """A file has other bytes than when it was looked at, or is gone."""


class Sink(Protocol):
    """A file that is being written from start to end."""

    def write(self, data: Any, /) -> Any:
        """Write bytes, all of them or an error."""


class OpenFile(ABC):
    """A file that is being read, of which all parts are of the same bytes.

    Attributes:
        run_bytes: How much to read in one call, so that calls don't cost more than bytes.
    """

    run_bytes: int

    @property
    @abstractmethod
    def size(self) -> int:
        """Length in bytes."""

    @property
    @abstractmethod
    def version(self) -> Hashable:
        """Equal for the same bytes; another one as soon as the file is replaced."""

    @abstractmethod
    def read(self, begin: int, end: int, buffer: Buffer) -> np.ndarray:
        """Bytes ``begin`` to ``end``, (end − begin,) uint8, in memory of ``buffer`` or other memory.

        Raises:
            CorruptError: The file ends before.
            ReplacedError: It isn't the same file any more.
            StorageError: Storage refused.
        """

    @abstractmethod
    def tail(self, length: int) -> np.ndarray:
        """The last bytes, (length,) uint8, or all of a shorter file; afterwards size and version cost nothing.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: Storage refused.
        """


class LogFile(ABC):
    """A file of lines that one writer appends to while others read it.

    Attributes:
        fenced: Whether each change fails once another writer has changed the file, provided that every writer's first
            change is unlike any other's.
    """

    fenced: bool

    @abstractmethod
    def read(self, max_bytes: int) -> bytes:
        """All of it.

        Raises:
            DataError: There is no such file.
            CorruptError: Larger than ``max_bytes``.
            StorageError: Storage refused.
        """

    @abstractmethod
    def append(self, line: str) -> None:
        """Append a line, durably; a last line without its newline is cut off first.

        Raises:
            LockedError: Another writer has taken over.
            StorageError: Storage refused.
        """

    @abstractmethod
    def replace(self, data: bytes) -> None:
        """Replace all of it in one atomic step; raises what :meth:`append` does."""

    @abstractmethod
    def require_mine(self) -> None:
        """Check that nobody else has changed the file since this object read or changed it; a :data:`Fence`."""


class Location(ABC):
    """A file or a folder of a store; ``str`` names it as users do."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part."""

    @abstractmethod
    def __truediv__(self, name: str) -> Self: ...

    @abstractmethod
    def __str__(self) -> str: ...

    def resolve(self) -> Self:
        """The location itself where this one only refers to it."""
        return self

    # What is there ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def is_folder(self) -> bool:
        """Whether a complete folder is there."""

    @abstractmethod
    def is_file(self) -> bool:
        """Whether a file is there."""

    def exists(self) -> bool:
        """Whether anything is there."""
        return self.is_folder() or self.is_file()

    @abstractmethod
    def children(self) -> list[str]:
        """Names of what is in the folder, temporary ones included."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Names and lengths of the files in the folder."""

    @abstractmethod
    def require_contained(self) -> None:
        """Check that nothing in the folder leads out of it.

        Raises:
            CorruptError: A link or a special file.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Space that is left; None where nobody can tell."""

    # Files ------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, max_bytes: int, *, remedy: str = "") -> bytes:
        """Read a whole file of bounded size.

        Raises:
            DataError: Nothing there, or not a file.
            CorruptError: Larger than ``max_bytes``.
            StorageError: Storage refused.
        """

    def read_json(self) -> Any:
        """Read a JSON file; raises what :meth:`read` does, and CorruptError where it isn't JSON."""
        return decode_json(self.read(MAX_JSON_BYTES), f"{self}")

    @abstractmethod
    def open(self, version: Hashable = None) -> AbstractContextManager[OpenFile]:
        """Open a file for reading.

        Args:
            version: That of an earlier opening, if the caller goes on with what it knew then; a file that has another
                one may be opened all the same, and raise ReplacedError when it is read.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: Storage refused.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write a file so that a crash leaves either what was there before or all of ``data``, durably.

        Raises:
            StorageError: Storage refused.
        """

    def write_json(self, value: Any) -> None:
        """Write JSON as :func:`~causalprune.base.files.encode_json` encodes it."""
        self.write(encode_json(value))

    @abstractmethod
    def writing(self, fence: Fence) -> AbstractContextManager[Sink]:
        """Write a file of unknown length; it appears under its name, complete and durable, when the body ends.

        Args:
            fence: Where two writers can't be kept apart by a lock alone, it is asked before what another one may have
                written is replaced.

        Raises:
            LockedError: By the fence.
            StorageError: Storage refused.
        """

    @abstractmethod
    def remove(self) -> None:
        """Delete a file."""

    @abstractmethod
    def log(self) -> LogFile:
        """The file as a log."""

    @abstractmethod
    def lock(self, *, break_lock: bool = False, patient: bool = False) -> Lock:
        """The file as a lock.

        Args:
            break_lock: In object storage, take it even from a process on another host; on a disk the kernel knows.
            patient: On a disk, wait for whoever holds it.
        """

    @abstractmethod
    def holder(self) -> LockHolder | None:
        """Who holds the file as a lock, dead or alive; None too where a lock on a disk names nobody."""

    @abstractmethod
    def making(self, *, break_lock: bool = False) -> AbstractContextManager[object]:
        """Held while a store is made here, where two processes could otherwise make it at once.

        Args:
            break_lock: Take the lock, if it takes one, even from a process on another host.
        """

    @abstractmethod
    def zarr_store(self) -> Any:
        """What the zarr library reads the folder through, read-only.

        Raises:
            UsageError: The library that it takes is missing.
        """

    # Folders ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self) -> None:
        """Make the folder in which this one will lie, and remove what a crash left of building it before."""

    @abstractmethod
    def make_folder(self) -> None:
        """Make a folder inside one that is being built."""

    @abstractmethod
    def build(self, fill: Callable[[Self], None]) -> None:
        """Make a folder that appears as a whole, or not at all.

        Args:
            fill: Makes its content in the folder that it is given.
        """

    @abstractmethod
    def replace(self, aside: Self, fill: Callable[[Self], None]) -> None:
        """Build a folder in the place of one that may be there; at every moment it or ``aside`` is a complete folder.

        Args:
            aside: Where the old one is meanwhile; nothing is there before and afterwards.
            fill: As for :meth:`build`.
        """

    @abstractmethod
    def move(self, target: Self) -> None:
        """Give a complete folder another place, where nothing is; at every moment it is complete in one of them."""

    @abstractmethod
    def remove_folder(self) -> None:
        """Delete a folder; it disappears as a whole."""

    @abstractmethod
    def clear_leftovers(self) -> None:
        """Remove what a crash left in this folder of building and deleting others; only its one writer may do so."""
