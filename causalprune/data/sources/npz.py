"""Arrays in an ``.npz`` file: all headers are read and checked before any array is."""

from __future__ import annotations

import errno
import lzma
import math
import os
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalprune.base.errors import CorruptError, DataError, StorageError
from causalprune.base.files import require_file
from causalprune.base.specs import DataSpec
from causalprune.data.sources.arrays import CLASS_NAMES_KEY, read_arrays
from causalprune.data.sources.layout import check_layout, data_keys
from causalprune.data.splits import RawData

DEFLATE_LIMIT = 1032
"""Deflate expands one byte to at most this many (RFC 1951: 258 bytes take at least two bits)."""

MOST_NAME_BYTES = 2**24
"""Class names that are larger than this are no class names."""


_MALFORMED = (EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises, beside its own errors, for an archive that is damaged or encrypted."""


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def npz(spec: DataSpec) -> RawData:
    """Read ``npz:FILE``, written by ``numpy.savez`` (compressed or not), with the arrays of :func:`read_arrays`.

    Pickles are never loaded. Names, dtypes, shapes and sizes of all arrays are checked by their headers before one is
    read, and so is whether the machine has the memory to hold them.

    Raises:
        UsageError: ``spec.channels`` or ``spec.task`` can't be, see :func:`read_arrays`.
        DataError: The file is missing or empty, or its arrays aren't a data set.
        CorruptError: The file isn't an npz file, is damaged, or holds objects.
        StorageError: The file can't be read, or is too large for the memory.
    """
    path = spec.location()
    source = str(path)
    size = require_file(path, expected="an .npz file", remedy="check the path").st_size
    if size == 0:
        raise DataError(source, expected="an .npz file", found="an empty file")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read(archive, size, source)
    except (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, *_MALFORMED) as error:
        # A damaged position is an invalid argument, and damage in bzip2 an OSError without a number.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise StorageError(source, expected="a readable file", found=error.strerror or str(error)) from error
        raise CorruptError(source, expected="an intact .npz file", found=str(error)[:120]) from error
    return read_arrays(arrays, source, channels=spec.channels, task=spec.task, integers=spec.integers)


def _read(archive: zipfile.ZipFile, file_size: int, source: str) -> dict[str, np.ndarray]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    keys = [key for pair in data_keys(members, source).values() for key in pair]
    wanted = [*keys, *([CLASS_NAMES_KEY] if CLASS_NAMES_KEY in members else [])]
    headers = {key: _read_header(archive, members[key], file_size, f"{key} in {source}") for key in wanted}
    check_layout({key: headers[key] for key in keys}, source)
    if CLASS_NAMES_KEY in headers and headers[CLASS_NAMES_KEY].size > MOST_NAME_BYTES:
        raise DataError(
            f"{CLASS_NAMES_KEY} in {source}",
            expected=f"at most {MOST_NAME_BYTES} bytes of names",
            found=f"{headers[CLASS_NAMES_KEY].size}",
        )
    needed = sum(header.size for header in headers.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise StorageError(source, expected=f"arrays that fit in {memory} bytes of memory", found=f"{needed} bytes")
    return {key: _read_array(archive, members[key], f"{key} in {source}") for key in wanted}


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file_size: int, what: str) -> _Header:
    if info.file_size > DEFLATE_LIMIT * file_size:
        raise CorruptError(
            what, expected=f"at most {DEFLATE_LIMIT} times the file's {file_size} bytes", found=f"{info.file_size}"
        )
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}", None)
            if read_header is None:
                raise ValueError(f"npy version {version[0]}.{version[1]}")
            shape, _, dtype = read_header(file)
            header = _Header(shape, dtype)
            if min(shape, default=0) < 0:
                raise ValueError(f"shape {shape}")
            if dtype.hasobject:
                raise CorruptError(
                    what,
                    expected="numbers or strings",
                    found="Python objects (a pickle)",
                    remedy="save it with a numeric dtype, or with astype(str)",
                )
            declared = file.tell() + header.size
        if declared != info.file_size:
            raise ValueError(f"{declared} bytes declared, {info.file_size} stored")
        return header
    except (ValueError, TypeError, SyntaxError, OverflowError) as error:
        raise CorruptError(what, expected="an intact array", found=str(error)[:120]) from error


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> np.ndarray:
    try:
        with archive.open(info) as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            return array
    except (ValueError, TypeError, SyntaxError, OverflowError) as error:
        raise CorruptError(what, expected="an intact array", found=str(error)[:120]) from error
