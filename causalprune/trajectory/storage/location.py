"""What a store needs from the place where its files are: one interface for disks and for object storage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

import numpy as np

from causalprune.base.errors import CorruptError, DataError
from causalprune.base.json_files import MAX_JSON_BYTES, decode_json, encode_json
from causalprune.base.locks import Lock, LockHolder

LOCK = ".lock"
"""Held by the one process that records into a store."""

FITS_LOCK = ".fits-lock"
"""Held by the process that adds or replaces a fit."""

LOCKS = (LOCK, FITS_LOCK)

Fence = Callable[[], None]
"""Raises LockedError if another writer has taken over."""

Buffer = Callable[[int], np.ndarray]
"""Returns (n,) uint8 memory to read into."""


def damaged(source: object, *, expected: str, found: object) -> CorruptError:
    """The error for a file of a store that is missing or damaged."""
    remedy = "restore the file from a copy, or record again"
    return CorruptError(f"{source}", expected=expected, found=f"{found}", remedy=remedy)


class ReplacedError(CorruptError):
    """A file was replaced or deleted since it was opened."""


class Sink(Protocol):
    """A file that is being written from start to end."""

    def write(self, data: Any, /) -> Any:
        """Write all bytes, or raise."""


class OpenFile(Protocol):
    """A file opened for reading; everything read through it comes from the same version of the file.

    Attributes:
        run_bytes: How many bytes to read in one call, so that the calls don't cost more than the bytes.
    """

    run_bytes: int

    @property
    def size(self) -> int:
        """Length in bytes."""

    @property
    def version(self) -> Hashable:
        """Identifies the file's content: it changes as soon as the file is replaced."""

    def read(self, begin: int, end: int, buffer: Buffer) -> np.ndarray:
        """Bytes ``begin`` to ``end``, (end − begin,) uint8, in memory from ``buffer`` or elsewhere.

        Raises:
            CorruptError: The file is shorter.
            ReplacedError: The file was replaced.
            StorageError: Storage refused.
        """

    def tail(self, length: int) -> np.ndarray:
        """The last bytes, (length,) uint8, or all of a shorter file; size and version cost nothing afterwards.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: Storage refused.
        """


class LogFile(Protocol):
    """A text file that one writer appends lines to while others read it.

    Attributes:
        fenced: Whether every change fails once another writer has changed the file. This requires that the first
            change of every writer is unique.
    """

    fenced: bool

    def read(self, max_bytes: int) -> bytes:
        """Read the whole file.

        Raises:
            DataError: There is no such file.
            CorruptError: Larger than ``max_bytes``.
            StorageError: Storage refused.
        """

    def append(self, line: str) -> None:
        """Append a line, durably; an unfinished last line is cut off first.

        Raises:
            LockedError: Another writer has taken over.
            StorageError: Storage refused.
        """

    def replace(self, data: bytes) -> None:
        """Replace the whole file in one atomic step; raises like :meth:`append`."""

    def require_mine(self) -> None:
        """Check that nobody else has changed the file since this object read or changed it; a :data:`Fence`."""


class Location(ABC):
    """A file or a folder of a store; ``str`` names it as users do."""

    @property
    def name(self) -> str:
        """The last part."""
        return f"{self}".rpartition("/")[2]

    @abstractmethod
    def __truediv__(self, name: str) -> Self: ...

    @abstractmethod
    def __str__(self) -> str: ...

    def resolve(self) -> Self:
        """The location that this one refers to, if it is a link; else itself."""
        return self

    # Queries ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def is_folder(self) -> bool:
        """Whether there is a complete folder."""

    @abstractmethod
    def is_file(self) -> bool:
        """Whether there is a file."""

    def exists(self) -> bool:
        """Whether there is anything."""
        return self.is_folder() or self.is_file()

    @abstractmethod
    def children(self) -> list[str]:
        """Names of everything in the folder, including temporary names."""

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
        """Free space; None if it is unknown."""

    # Files ------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, max_bytes: int) -> bytes:
        """Read a file; DataError if there is none, CorruptError if it is larger than ``max_bytes``."""

    def read(self, max_bytes: int, expected: str) -> bytes:
        """Read a whole file of bounded size.

        Args:
            max_bytes: Larger files are refused.
            expected: What kind of file it is, for the error message.

        Raises:
            CorruptError: Nothing there, not a file, or too large.
            StorageError: Storage refused.
        """
        try:
            return self._read(max_bytes)
        except DataError as error:
            raise damaged(self, expected=expected, found=error.found) from error

    def read_json(self, expected: str) -> Any:
        """Read a JSON file; raises like :meth:`read`, and CorruptError if it isn't JSON."""
        return decode_json(self.read(MAX_JSON_BYTES, expected), f"{self}")

    @abstractmethod
    def open(self, version: Hashable = None) -> AbstractContextManager[OpenFile]:
        """Open a file for reading.

        Args:
            version: The version seen at an earlier opening, if what was read then is still used. If the file has
                another version by now, opening may succeed nevertheless, and reading raises ReplacedError.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: Storage refused.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write a file durably, so that a crash leaves either the old file or all of ``data``.

        Raises:
            StorageError: Storage refused.
        """

    def write_json(self, value: Any) -> None:
        """Write JSON, encoded by :func:`~causalprune.base.json_files.encode_json`."""
        self.write(encode_json(value))

    @abstractmethod
    def writing(self, fence: Fence) -> AbstractContextManager[Sink]:
        """Write a file of unknown length; it appears under its name, complete and durable, when the body ends.

        Args:
            fence: Called before replacing what another writer may have written, where a lock alone can't keep two
                writers apart.

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
            break_lock: In object storage, take the lock even from a process on another host. On a disk, the kernel
                knows whether a holder is alive.
            patient: On a disk, wait until the lock is free.
        """

    @abstractmethod
    def holder(self) -> LockHolder | None:
        """Who holds the file as a lock, dead or alive; None also if the lock names nobody."""

    @abstractmethod
    def making(self, *, break_lock: bool = False) -> AbstractContextManager[object]:
        """Enter while making a store here, so that two processes can't make it at once.

        Args:
            break_lock: As in :meth:`lock`.
        """

    @abstractmethod
    def zarr_store(self) -> Any:
        """What the zarr library reads the folder through, read-only.

        Raises:
            UsageError: A required library is missing.
        """

    # Folders ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self) -> None:
        """Make the parent folder, and remove what a crash left of building this one."""

    @abstractmethod
    def make_folder(self) -> None:
        """Make a folder inside one that is being built."""

    @abstractmethod
    def build(self, fill: Callable[[Self], None]) -> None:
        """Make a folder that appears as a whole, or not at all.

        Args:
            fill: Receives the folder, and writes its content.
        """

    @abstractmethod
    def replace(self, aside: Self, fill: Callable[[Self], None]) -> None:
        """Build a folder in place of an existing one, if any; a complete one is here or at ``aside`` at any time.

        Args:
            aside: Where the old one is meanwhile; nothing is there before and afterwards.
            fill: As for :meth:`build`.
        """

    @abstractmethod
    def move(self, target: Self) -> None:
        """Move a complete folder to ``target``, where nothing is; a complete one is in either place at any time."""

    @abstractmethod
    def remove_folder(self) -> None:
        """Delete a folder; it disappears as a whole."""

    @abstractmethod
    def clear_leftovers(self) -> None:
        """Remove what a crash left of building and deleting things in this folder; only its one writer may call it."""
