# Functions of `os`, not methods of Path, so that a test can replace each of them.
"""Durable files: every byte that causalprune writes passes through here; a crash leaves the old file or the new one.

Nothing else in the package calls the writing functions of :mod:`os`, but for the library that creates and locks lock
files; a test that replaces this module's ``os`` can therefore fail any single disk operation.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from causalprune.errors import CorruptError, DataError, StorageError

MAX_JSON_BYTES = 64 * 2**20
"""A JSON file beyond this is not one of ours."""

PARTIAL = ".partial-"
"""What a temporary name contains: whatever bears it was never finished and may be removed."""

_serial = itertools.count()

_REMEDIES = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some of the quota, then run the same command again",
    errno.EACCES: "get permission for the directory, or choose another",
    errno.EPERM: "get permission for the directory, or choose another",
    errno.EROFS: "choose a directory on a writable file system",
    errno.ENOENT: "create the directory that holds it first",
    errno.ENOTDIR: "choose another path: part of this one is a file",
    errno.EISDIR: "choose another path: this one is a directory",
    errno.EEXIST: "choose another path: a file has this name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "check the disk, then run the same command again",
    **dict.fromkeys(
        (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP),
        "choose a directory on another file system, or have this one mounted with locks (on Lustre: flock)",
    ),
}


@contextmanager
def storage_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an ``OSError`` in the body into a :class:`StorageError` that names ``path`` and the way out.

    Args:
        path: The file that the user knows, rather than a temporary name.
        action: What was tried, for the message ``cannot <action> <path>``.
    """
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        reason = f"{(error.strerror or str(error)).lower()} ({errno.errorcode.get(code, type(error).__name__)})"
        remedy = _REMEDIES.get(code, "see to the file system, then run the same command again")
        raise StorageError(f"cannot {action} {path}", found=reason, remedy=remedy) from error


def write_atomic(path: Path, data: bytes | bytearray | memoryview, *, previous: Path | None = None) -> None:
    """Write a file so that a crash leaves either what was there before or all of ``data``, on the disk.

    Args:
        path: The file.
        data: All of its content.
        previous: Where to keep what was at ``path``. For a moment, or after a crash then, ``path`` is missing.

    Raises:
        StorageError: The file system refused; no temporary file remains.
    """
    with atomic_file(path, previous=previous) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, *, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Stream into a file that appears under its name, complete and synced, when the body ends.

    If the body raises, the temporary file is removed and what was at ``path`` stays as it was. What it replaces goes
    to ``previous``, if that is given.

    Yields:
        An unbuffered binary file, for writing from start to end; it doesn't seek. Until the body ends, what was written
        can be read at its ``name``.

    Raises:
        StorageError: The file system refused, in the body or at the end.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    with storage_errors(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            try:
                yield cast(BinaryIO, _DescriptorWriter(descriptor, temporary))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if previous is not None and path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)


class _DescriptorWriter(io.RawIOBase):
    """A file over a descriptor, whose every write is complete or an error."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self.name = f"{path}"

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while view:
            view = view[os.write(self._descriptor, view) :]
        return size


def rewrite(descriptor: int, data: bytes) -> None:
    """Replace the content of a small open file, not atomically.

    Raises:
        OSError: The file system refused.
    """
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)


def temporary_beside(path: Path) -> Path:
    """Choose a name in the same directory that no other live writer uses; it contains :data:`PARTIAL`."""
    return path.with_name(f".{path.name}{PARTIAL}{os.getpid()}-{next(_serial)}")


def remove_partials(directory: Path, *names: str) -> None:
    """Remove what a crash left behind in ``directory`` under temporary names; only its one writer may call this.

    Args:
        directory: Where to look.
        names: Remove what was to become one of these; anything when left out.
    """
    begins = tuple(f".{name}{PARTIAL}" for name in names) or (".",)
    with storage_errors(directory, "clean up"):
        for entry in list(directory.iterdir()):
            if PARTIAL in entry.name and entry.name.startswith(begins):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    os.unlink(entry)


def remove_file(path: Path, *, missing_ok: bool = False) -> None:
    """Delete a file."""
    with storage_errors(path, "delete"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            if not missing_ok:
                raise


def remove_tree(path: Path) -> None:
    """Delete a directory so that a crash leaves all of it or, under a temporary name, nothing that counts."""
    doomed = temporary_beside(path)
    with storage_errors(path, "delete"):
        os.rename(path, doomed)
        sync_directory(path.parent)
        shutil.rmtree(doomed)


def make_directory(path: Path) -> None:
    """Create a directory and its parents, durably; one that exists is left alone."""
    with storage_errors(path, "create"):
        if path.is_dir():
            return
        make_directory(path.parent)
        os.makedirs(path, exist_ok=True)
        sync_directory(path.parent)


def rename(source: Path, target: Path) -> None:
    """Give a finished file or directory its final name, durably; a directory at ``target`` must be empty."""
    with storage_errors(target):
        os.rename(source, target)
        sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems can't sync a directory, and then do it with the rename.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append one line and sync it; the file is created if need be.

    An unterminated last line, left by a crash in the middle of an append, is cut off first. If the write fails the
    file is cut back to what it was. One writer at a time.

    Args:
        path: The file.
        line: Text without a newline.

    Raises:
        StorageError: The file system refused.
    """
    data = memoryview(line.encode() + b"\n")
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            end = _end_of_last_line(descriptor, size)
            if end != size:
                os.ftruncate(descriptor, end)
            position = end
            try:
                while data:
                    written = os.pwrite(descriptor, data, position)
                    data, position = data[written:], position + written
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if size == 0:
            sync_directory(path.parent)


def _end_of_last_line(descriptor: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - 4096)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def read_bytes(path: Path, max_bytes: int, *, remedy: str = "") -> bytes:
    """Read a whole file of bounded size.

    Args:
        path: The file.
        max_bytes: More than this is refused before it is read.
        remedy: What to do when the file is missing.

    Raises:
        DataError: Nothing there, or not a file.
        CorruptError: Larger than ``max_bytes``.
        StorageError: The file system refused.
    """
    with storage_errors(path, "read"):
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"{path}", expected="a file", found="nothing", remedy=remedy) from error
        if not stat.S_ISREG(status.st_mode):
            found = "a directory" if stat.S_ISDIR(status.st_mode) else "a special file"
            raise DataError(f"{path}", expected="a file", found=found, remedy=remedy)
        if status.st_size > max_bytes:
            raise CorruptError(f"{path}", expected=f"at most {max_bytes} bytes", found=f"{status.st_size}")
        return Path(path).read_bytes()


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, indented by 2, atomically; equal values give equal bytes.

    Raises:
        ValueError: A float that isn't finite, which JSON can't say: use ``None``.
        StorageError: The file system refused.
    """
    write_atomic(path, encode_json(value))


def encode_json(value: Any) -> bytes:
    """Encode a value as the bytes that :func:`write_json` writes."""
    return (json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES, *, remedy: str = "") -> Any:
    """Read a JSON file.

    Raises:
        DataError: Nothing there, or not a file.
        CorruptError: Too large, or not JSON.
        StorageError: The file system refused.
    """
    return decode_json(read_bytes(path, max_bytes, remedy=remedy), f"{path}")


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """Add the SHA-256 over a JSON object's content, so that :func:`is_sealed` knows it again."""
    return {**value, "sha256": _seal_of(value)}


def is_sealed(value: dict[str, Any]) -> bool:
    """Whether a JSON object still says what it said when :func:`seal` was called."""
    return bool(value.get("sha256") == _seal_of(value))


def _seal_of(value: dict[str, Any]) -> str:
    content = {name: inner for name, inner in value.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def decode_json(data: bytes | str, source: str) -> Any:
    """Decode JSON that came from ``source``.

    Raises:
        CorruptError: It isn't JSON (NaN and Infinity are not).
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CorruptError(source, expected="JSON", found=str(error)[:120]) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is not JSON")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        DataError: Nothing there, or not a file.
        StorageError: The file system refused.
    """
    with storage_errors(path, "read"):
        try:
            with Path(path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise DataError(f"{path}", expected="a file", found="nothing that can be read") from error
