"""A data set in one ``.npz`` file, as ``numpy.savez`` or ``numpy.savez_compressed`` writes it."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from causalprune.data.arrays import CLASS_NAMES_KEY, CUT_KEYS, SPLIT_KEYS, read_arrays
from causalprune.data.splits import RawData
from causalprune.errors import CorruptError, DataError, StorageError

DEFLATE_LIMIT = 1032
"""Deflate expands no byte to more than this many (RFC 1951: 258 bytes cost at least two bits)."""


def read_npz(path: Path) -> RawData:
    """Read the arrays that :func:`causalprune.data.arrays.read_arrays` describes.

    No pickle is ever loaded, and sizes are checked against the file's before anything is allocated.

    Raises:
        DataError: The file is missing, empty, or its arrays aren't a data set.
        CorruptError: It is no npz file, is damaged, or holds objects.
        StorageError: It can't be read.
    """
    source = str(path)
    if path.is_dir():
        raise DataError(source, expected="an .npz file", found="a directory")
    try:
        size = path.stat().st_size
        if size == 0:
            raise DataError(source, expected="an .npz file", found="an empty file")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = [key for key in (*SPLIT_KEYS, *CUT_KEYS, CLASS_NAMES_KEY) if key in members]
            arrays = {key: _read_member(archive, members[key], size, f"{key} in {source}") for key in wanted}
    except FileNotFoundError as error:
        raise DataError(source, expected="an .npz file", found="nothing", remedy="check the path") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CorruptError(source, expected="an intact .npz file", found=str(error)[:120]) from error
    except OSError as error:
        raise StorageError(source, expected="a readable file", found=error.strerror or str(error)) from error
    return read_arrays(arrays or dict.fromkeys(members), source)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file_size: int, what: str) -> np.ndarray:
    if info.file_size > DEFLATE_LIMIT * file_size:
        raise CorruptError(
            what, expected=f"at most {DEFLATE_LIMIT} times the file's {file_size} bytes", found=f"{info.file_size}"
        )
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"npy version {version[0]}.{version[1]}")
            shape, _, dtype = read_header(file)
            if dtype.hasobject:
                raise CorruptError(
                    what, expected="numbers", found="Python objects (a pickle)", remedy="save it with a numeric dtype"
                )
            declared = file.tell() + math.prod(shape) * dtype.itemsize
        if declared != info.file_size:
            raise ValueError(f"{declared} bytes declared, {info.file_size} stored")
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, TypeError, SyntaxError, OverflowError) as error:
        raise CorruptError(what, expected="an intact array", found=str(error)[:120]) from error
