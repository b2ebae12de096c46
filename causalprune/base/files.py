"""Durable files: a crash leaves the old file or the new one, and every change goes through one :class:`Disk`.

Nothing else in the package changes a disk, except the library that creates and locks lock files. Tests install a disk
of their own (:func:`use`) to make any single change fail.
"""

from __future__ import annotations

import errno
import fcntl
import io
import itertools
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, cast

from causalprune.base.errors import DataError, StorageError, storage_errors
from causalprune.base.signals import uninterrupted

PARTIAL = ".partial-"
"""Part of every temporary name. A file with such a name is unfinished and may be removed."""

_serial = itertools.count()


class Disk:
    """The calls that change a disk."""

    open = staticmethod(os.open)
    write = staticmethod(os.write)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    replace = staticmethod(os.replace)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    makedirs = staticmethod(os.makedirs)
    rmdir = staticmethod(os.rmdir)
    rmtree = staticmethod(shutil.rmtree)


_disk = Disk()


@contextmanager
def use(disk: Disk) -> Iterator[None]:
    """Use another disk, in all threads, while the body runs."""
    global _disk
    previous, _disk = _disk, disk
    try:
        yield
    finally:
        _disk = previous


def require_file(path: Path, *, expected: str = "a file", remedy: str = "") -> os.stat_result:
    """Check that a path leads to a regular file: opening a pipe would wait, and reading a device might never end.

    Args:
        path: Where the file should be.
        expected: What it should be, for the message.
        remedy: What to do if it isn't there.

    Returns:
        Its status.

    Raises:
        DataError: Nothing is there, or a directory, device, pipe or socket, or a symbolic link that leads to itself.
        StorageError: The file system refused.
    """
    with storage_errors(path, "read"):
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            found = "nothing"
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            found = "a circle of symbolic links"
        else:
            if stat.S_ISREG(status.st_mode):
                return status
            found = "a directory" if stat.S_ISDIR(status.st_mode) else "a special file (a device, pipe or socket)"
    raise DataError(f"{path}", expected=expected, found=found, remedy=remedy)


def require_replaceable(path: Path) -> None:
    """Check that no device, pipe or socket lies where a file is to be written, because writing would replace it.

    Raises:
        StorageError: One does, or the file system refused.
    """
    with storage_errors(path), suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            found = "it is a special file (a device, pipe or socket)"
            raise StorageError(f"cannot write {path}", found=found, remedy="choose another path")


def require_writable(path: Path) -> None:
    """Check, before the work, that a file can be written: its directory is created, and takes a file.

    Raises:
        StorageError: The file system refused, or a device, pipe or socket lies there.
    """
    path = Path(path)
    make_directory(path.parent)
    require_replaceable(path)
    tried = temporary_beside(path)
    with storage_errors(path), uninterrupted():
        os.close(_disk.open(tried, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        _disk.unlink(tried)


def write_atomic(path: Path, data: bytes | bytearray | memoryview, *, previous: Path | None = None) -> None:
    """Write a file durably, so that a crash leaves either the old content or all of ``data``.

    A signal that arrives meanwhile ends the stage afterwards.

    Args:
        path: The file.
        data: All of its content.
        previous: Where to keep the old file. Between the two renames ``path`` is missing.

    Raises:
        StorageError: The file system refused; no temporary file remains.
    """
    with uninterrupted(), atomic_file(path, previous=previous) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, *, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Stream into a file that appears under its name, complete and synced, when the body ends.

    If the body raises, the temporary file is removed and the old file stays. If ``previous`` is given, the old file is
    moved there instead of being replaced.

    Yields:
        An unbuffered binary file that doesn't seek. Until the body ends, its content can be read at its ``name``.

    Raises:
        StorageError: The file system refused, in the body or at the end.
    """
    path = Path(path)
    require_replaceable(path)
    temporary = temporary_beside(path)
    with storage_errors(path):
        try:
            descriptor = _disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                yield cast(BinaryIO, _Writer(descriptor, temporary))
                _disk.fsync(descriptor)
            finally:
                os.close(descriptor)
            if previous is not None and path.exists():
                _disk.replace(path, previous)
            _disk.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                _disk.unlink(temporary)
            raise
        sync_directory(path.parent)


class _Writer(io.RawIOBase):
    """A file over a descriptor. Each write writes everything or raises."""

    def __init__(self, descriptor: int, path: Path | str = "") -> None:
        self._descriptor, self.name = descriptor, f"{path}"

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while view:
            view = view[_disk.write(self._descriptor, view) :]
        return size


def rewrite(descriptor: int, data: bytes) -> None:
    """Replace the content of a small open file, not atomically.

    Raises:
        OSError: The file system refused.
    """
    _disk.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    _Writer(descriptor).write(data)


def write_at(path: str, offset: int, pieces: Iterable[bytes], *, known_as: str) -> None:
    """Write into a file that another process has made and others write to, too, durably.

    Args:
        path: The file.
        offset: Where this process's bytes begin.
        pieces: These bytes.
        known_as: The file's final name, for the message.

    Raises:
        StorageError: The file system refused.
    """
    with storage_errors(Path(known_as)):
        descriptor = _disk.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            for data in pieces:
                _Writer(descriptor).write(data)
            _disk.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """Choose a name in the same directory that no other live writer uses: a dot, the final name, then PARTIAL.

    The temporary name of a temporary file contains the same final name.
    """
    final = path.name[1:].partition(PARTIAL)[0] if path.name.startswith(".") and PARTIAL in path.name else path.name
    return path.with_name(f".{final}{PARTIAL}{os.getpid()}-{next(_serial)}")


def remove_partials(directory: Path, *names: str) -> None:
    """Remove the temporary files that a crash left in a directory; only its single writer may call this.

    Args:
        directory: The directory.
        names: Remove only what was to become one of these; by default everything.
    """
    begins = tuple(f".{name}{PARTIAL}" for name in names) or (".",)
    with storage_errors(directory, "clean up"):
        for entry in list(directory.iterdir()):
            if PARTIAL in entry.name and entry.name.startswith(begins):
                if entry.is_dir() and not entry.is_symlink():
                    _disk.rmtree(entry)
                else:
                    _disk.unlink(entry)


def remove_file(path: Path, *, missing_ok: bool = False) -> None:
    """Delete a file."""
    with storage_errors(path, "delete"), suppress(FileNotFoundError) if missing_ok else nullcontext():
        _disk.unlink(path)


def remove_tree(path: Path) -> None:
    """Delete a directory. A crash leaves all of it, or a part under a temporary name, which is removed later."""
    doomed = temporary_beside(path)
    with storage_errors(path, "delete"):
        _disk.rename(path, doomed)
        sync_directory(path.parent)
        _disk.rmtree(doomed)


def make_directory(path: Path) -> None:
    """Create a directory and its parents, durably, unless it exists."""
    with storage_errors(path, "create"):
        if path.is_dir():
            return
        make_directory(path.parent)
        _disk.makedirs(path, exist_ok=True)
        sync_directory(path.parent)
        if (made := _made.get()) is not None:
            made.append(path)


_made: ContextVar[list[Path] | None] = ContextVar("made", default=None)
"""The directories that were created since :func:`empty_directories_removed` began, in their order."""


@contextmanager
def empty_directories_removed() -> Iterator[None]:
    """If the body fails, remove the directories that it created (:func:`make_directory`) and left empty.

    A command makes the directory of its output first, for the lock, and may then find that its input can't be used.
    """
    made: list[Path] = []
    token = _made.set(made)
    try:
        yield
    except BaseException:
        for path in reversed(made):
            # One that isn't empty stays. The error of the body matters, not one of this.
            with suppress(OSError):
                _disk.rmdir(path)
        raise
    finally:
        _made.reset(token)


@contextmanager
def withdrawn(
    claim: Iterable[Path], lock: Path, *, within: AbstractContextManager[object] | None = None
) -> Iterator[None]:
    """If the body fails before anything was made, remove the files by which it binds a directory to a configuration.

    Otherwise a command that was corrected would be refused, because another one has been there. What was there before
    stays: it binds the directory to the work of another process.

    Args:
        claim: The files, in one directory, of which the body makes all or none. Only one process at a time enters.
        lock: The file of the lock by which that is so.
        within: The lock, if it isn't held when the body ends: by then another process may have found the files.
    """
    claim = tuple(claim)
    if any(path.exists() for path in claim):
        yield
        return
    try:
        yield
    except Exception:
        known = {path.name for path in (*claim, lock)}
        with suppress(OSError, StorageError), within or nullcontext():
            if all(path.is_dir() or path.name in known for path in claim[0].parent.rglob("*")):
                for path in claim:
                    remove_file(path, missing_ok=True)
        raise


def rename(source: Path, target: Path) -> None:
    """Give a finished file or directory its final name, durably; a directory at ``target`` must be empty."""
    with storage_errors(target):
        _disk.rename(source, target)
        sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _disk.fsync(descriptor)
    except OSError as error:
        # Some network file systems can't sync a directory; their renames are durable at once.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def append_if_empty(path: Path, data: bytes) -> None:
    """Append to a small file if it is there and empty; what another process writes meanwhile isn't overwritten.

    Raises:
        StorageError: The file system refused, or this is no regular file.
    """
    with storage_errors(path), suppress(FileNotFoundError):
        descriptor = _disk.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and not status.st_size:
                _disk.write(descriptor, data)
        finally:
            os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make all files below a directory and their names durable, after another library wrote them without syncing."""
    with storage_errors(path):
        for folder, _, names in os.walk(path):
            for name in names:
                descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    _disk.fsync(descriptor)
                finally:
                    os.close(descriptor)
            sync_directory(Path(folder))


def append_line(path: Path, line: str) -> None:
    """Append one line and sync it; the file is created if necessary.

    An unterminated last line, left by a crash, is cut off first. If the write fails, the file gets its former
    size back. One writer at a time.

    Args:
        path: The file.
        line: Text without a newline.

    Raises:
        StorageError: The file system refused.
    """
    with storage_errors(path):
        descriptor = _disk.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            end = _end_of_last_line(descriptor, size)
            if end != size:
                _disk.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                _Writer(descriptor).write(line.encode() + b"\n")
                _disk.fsync(descriptor)
            except BaseException:
                with suppress(OSError):
                    _disk.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if size == 0:
            sync_directory(path.parent)


LOG_PATIENCE = 1.0
"""Seconds to wait for another process that writes to the same log; then its line may get a second newline."""


def log_line(path: Path, line: str) -> None:
    """Append one line to a log that several processes write to, and sync it; the file is created if necessary.

    It is one write behind all others, and nothing is ever cut off: what a full disk left of a line stays, and gets a
    newline. A link isn't followed.

    Args:
        path: The file.
        line: Text without a newline.

    Raises:
        StorageError: The file system refused, or this is no regular file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with storage_errors(path):
        descriptor = _disk.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.ENOTSUP, "not a regular file")
            # Appending is atomic on a disk, but not on NFS, and another line must be seen whole to be told from a torn
            # one.
            _lock_briefly(descriptor)
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            data = b"\n" * is_torn + line.encode() + b"\n"
            if _disk.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _disk.fsync(descriptor)
        finally:
            os.close(descriptor)
        if size == 0:
            sync_directory(path.parent)


def _lock_briefly(descriptor: int) -> None:
    """Lock an open file until it is closed; where that isn't possible in time, go on without."""
    ends = time.monotonic() + LOG_PATIENCE
    while time.monotonic() < ends:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            return None
    return None


def _end_of_last_line(descriptor: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - 4096)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def bytes_below(path: Path) -> int:
    """Bytes of a file or of all files in a folder; 0 if there is none."""
    if path.is_dir():
        return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return path.lstat().st_size if path.is_file() else 0
