"""A store's files on a disk."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from causalprune.base.errors import CorruptError, StorageError, storage_errors
from causalprune.base.files import (
    append_line,
    atomic_file,
    make_directory,
    remove_file,
    remove_partials,
    remove_tree,
    rename,
    temporary_beside,
    write_atomic,
)
from causalprune.base.json_files import read_bytes
from causalprune.base.locks import FileLock, LockHolder, lock_holder
from causalprune.base.paths import real_path
from causalprune.trajectory.storage.location import Buffer, Fence, Location, LogFile, OpenFile, Sink, damaged


@dataclass(frozen=True)
class DiskLocation(Location):
    """A path; files are synced before they get their final names."""

    path: Path

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.path / name)

    def __str__(self) -> str:
        return str(self.path)

    def resolve(self) -> Self:
        """Follow symbolic links, so that deleting a store deletes the store and not the link."""
        return type(self)(real_path(self.path))

    def is_folder(self) -> bool:
        """Whether there is a directory."""
        return self.path.is_dir()

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self.path.is_file()

    def exists(self) -> bool:
        """Whether there is anything."""
        return self.path.exists()

    def children(self) -> list[str]:
        """Names of everything in the directory."""
        with storage_errors(self.path, "read"):
            return [entry.name for entry in self.path.iterdir()]

    def sizes(self) -> dict[str, int]:
        """Names and lengths of the files in the directory."""
        with storage_errors(self.path, "read"), os.scandir(self.path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def require_contained(self) -> None:
        """Check that nothing below is a link or a special file, through which one could leave the directory."""
        with storage_errors(self.path, "read"):
            directories = [str(self.path)]
            while directories:
                with os.scandir(directories.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            directories.append(entry.path)
                        elif not entry.is_file(follow_symlinks=False) and (entry.is_symlink() or Path(entry).exists()):
                            found = "a link" if entry.is_symlink() else "a special file"
                            raise CorruptError(
                                entry.path,
                                expected="files and directories only, as causalprune writes them",
                                found=found,
                                remedy="don't use this store unless you know why it is there",
                            )

    def free_bytes(self) -> int | None:
        """Free space on the disk."""
        return shutil.disk_usage(self.path.parent).free

    def _read(self, max_bytes: int) -> bytes:
        return read_bytes(self.path, max_bytes)

    @contextmanager
    def open(self, version: Hashable = None) -> Iterator[OpenFile]:
        """Open the file, which stays readable when it is replaced."""
        del version
        descriptor = -1
        with storage_errors(self.path, "read"), suppress(FileNotFoundError, NotADirectoryError):
            # Opening a pipe would wait for a writer; so it is empty.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if descriptor < 0:
            raise FileNotFoundError(f"{self}")
        try:
            yield _OpenDiskFile(self.path, descriptor)
        finally:
            os.close(descriptor)

    def write(self, data: bytes) -> None:
        """See :func:`~causalprune.base.files.write_atomic`."""
        write_atomic(self.path, data)

    def writing(self, fence: Fence) -> AbstractContextManager[Sink]:
        """See :func:`~causalprune.base.files.atomic_file`; a kernel lock keeps writers apart."""
        del fence
        return atomic_file(self.path)

    def remove(self) -> None:
        """Delete the file."""
        remove_file(self.path)

    def log(self) -> LogFile:
        """The file as a log."""
        return _DiskLog(self.path)

    def lock(self, *, break_lock: bool = False, patient: bool = False) -> FileLock:
        """The file as a kernel lock."""
        del break_lock
        return FileLock(self.path, patience=math.inf if patient else None)

    def holder(self) -> LockHolder | None:
        """Who holds it."""
        return lock_holder(self.path)

    def making(self, *, break_lock: bool = False) -> AbstractContextManager[object]:
        """Needs no lock: if two processes rename directories to this name, one of them fails."""
        del break_lock
        return nullcontext()

    def zarr_store(self) -> Any:
        """The directory, for zarr."""
        from zarr.storage import LocalStore, StorePath

        return StorePath(LocalStore(self.path, read_only=True))

    def prepare(self) -> None:
        """Make the parent directory; remove temporary directories of an earlier attempt."""
        make_directory(self.path.parent)
        remove_partials(self.path.parent, self.path.name)

    def make_folder(self) -> None:
        """Make the directory."""
        make_directory(self.path)

    def build(self, fill: Callable[[Self], None]) -> None:
        """Fill a directory under a temporary name, then rename it."""
        self._place(fill, None)

    def replace(self, aside: Self, fill: Callable[[Self], None]) -> None:
        """Fill a directory under a temporary name, then rename both."""
        self._place(fill, aside.path)
        if aside.path.exists():
            remove_tree(aside.path)

    def _place(self, fill: Callable[[Self], None], aside: Path | None) -> None:
        temporary = temporary_beside(self.path)
        try:
            fill(type(self)(temporary))
            if aside is not None and self.path.exists():
                rename(self.path, aside)
            rename(temporary, self.path)
        except BaseException:
            if temporary.exists():
                with suppress(StorageError):
                    remove_tree(temporary)
            raise

    def move(self, target: Self) -> None:
        """Rename the directory."""
        rename(self.path, target.path)

    def remove_folder(self) -> None:
        """See :func:`~causalprune.base.files.remove_tree`."""
        remove_tree(self.path)

    def clear_leftovers(self) -> None:
        """See :func:`~causalprune.base.files.remove_partials`."""
        remove_partials(self.path)


class _OpenDiskFile:
    run_bytes = 2**20
    """Few calls, while the bytes are still in cache when they are decoded."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.size = status.st_size
        self.version: Hashable = (status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self, begin: int, end: int, buffer: Buffer) -> np.ndarray:
        out = buffer(end - begin)
        view, offset = out.data, begin
        with storage_errors(self._path, "read"):
            while view:
                count = os.preadv(self._descriptor, [view], offset)
                if count == 0:
                    raise damaged(self._path, expected=f"{len(view)} more bytes at {offset}", found="its end")
                view, offset = view[count:], offset + count
        return out

    def tail(self, length: int) -> np.ndarray:
        return self.read(max(0, self.size - length), self.size, lambda size: np.empty(size, np.uint8))


class _DiskLog:
    fenced = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, max_bytes: int) -> bytes:
        return read_bytes(self._path, max_bytes)

    def append(self, line: str) -> None:
        append_line(self._path, line)

    def replace(self, data: bytes) -> None:
        write_atomic(self._path, data)

    def require_mine(self) -> None:
        """The lock ensures it."""
