"""Arrays of the user, from an ``.npz`` file or a factory, checked and turned into a data set."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from causalprune.base.errors import CausalpruneError, CorruptError, DataError, StorageError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.base.user_code import import_user_module
from causalprune.data.splits import RawData, Split, data_in_memory

CUT_KEYS = ("x", "y")
SPLIT_KEYS = ("x_train", "y_train", "x_test", "y_test")
CLASS_NAMES_KEY = "class_names"

DEFLATE_LIMIT = 1032
"""Deflate expands one byte to at most this many (RFC 1951: 258 bytes take at least two bits)."""


def npz(spec: DataSpec) -> RawData:
    """Read ``npz:FILE``, written by ``numpy.savez`` (compressed or not), with the arrays of :func:`read_arrays`.

    Pickles are never loaded, and declared sizes are checked against the file before anything is allocated.

    Raises:
        DataError: The file is missing or empty, or its arrays aren't a data set.
        CorruptError: The file isn't an npz file, is damaged, or holds objects.
        StorageError: The file can't be read.
    """
    path = spec.location()
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
            read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}", None)
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


def read_factory(name: str, *, trust_code: bool) -> RawData:
    """Call ``package.module:factory`` without arguments and read the mapping of arrays that it returns.

    The module is imported by :func:`causalprune.base.user_code.import_user_module`. The mapping is what
    :func:`read_arrays` describes; its values are NumPy arrays, tensors or nested lists.

    Raises:
        CorruptError: ``trust_code`` is False.
        UsageError: The module or the function doesn't exist.
        DataError: The module or the function fails, or the function doesn't return a data set.
    """
    subject = f"data set {name}"
    if not trust_code:
        raise CorruptError(
            subject,
            expected="a data set that runs no code from outside",
            found="a function",
            remedy="pass `trust_code` if you trust it",
        )
    module_name, _, function_name = name.partition(":")
    try:
        module = import_user_module(module_name)
    except ModuleNotFoundError as error:
        expected = f"an importable module {error.name or module_name}"
        raise UsageError(
            subject, expected=expected, found="none", remedy="install it or run from its folder"
        ) from error
    except Exception as error:
        raise DataError(subject, expected=f"an importable module {module_name}", found=_summary(error)) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(subject, expected=f"a function {function_name} in {module_name}", found="none")
    try:
        arrays = function()
    except CausalpruneError:
        raise
    except Exception as error:
        raise DataError(subject, expected="arrays", found=_summary(error)) from error
    if not isinstance(arrays, Mapping):
        expected = f"a mapping with the keys {', '.join(SPLIT_KEYS)}, or {' and '.join(CUT_KEYS)}"
        raise DataError(subject, expected=expected, found=type(arrays).__name__)
    return read_arrays(arrays, subject)


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def read_arrays(arrays: Mapping[str, Any], source: str) -> RawData:
    """Check arrays and convert them to the layout of a data set.

    Inputs of shape (N, F) are features. (N, H, W) are gray images; in (N, C, H, W) or (N, H, W, C), the channels are
    the smaller of the axes 1 and 3 (axis 1 if they are equal). Whole numbers in 0..255 become uint8 images, floats
    become float32 images. Targets have shape (N,) or (N, 1): whole numbers are labels 0..K−1, each of which must occur
    in the training data; floats make it a regression.

    Args:
        arrays: ``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``x`` and ``y``, from which a test split is cut;
            optionally ``class_names`` (K,). Other keys are ignored.
        source: Where the arrays come from, for the error.

    Raises:
        DataError: An array is missing, empty, not finite, or has a wrong length or shape, or a label is out of range.
    """
    keys = SPLIT_KEYS if "x_train" in arrays else CUT_KEYS
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise DataError(
            source,
            expected=f"the arrays {', '.join(SPLIT_KEYS)}, or {' and '.join(CUT_KEYS)}",
            found=", ".join(sorted(map(str, arrays)))[:200] or "none",
        )
    tensors = {key: (_inputs if key.startswith("x") else _targets)(arrays[key], f"{key} in {source}") for key in keys}
    x, y = tensors[keys[0]], tensors[keys[1]]
    for inputs, targets in zip(keys[::2], keys[1::2], strict=True):
        if len(tensors[inputs]) != len(tensors[targets]):
            raise DataError(
                source,
                expected=f"{inputs} and {targets} of one length",
                found=f"{len(tensors[inputs])} and {len(tensors[targets])}",
            )
    train, test = Split(x, y), None
    if keys == SPLIT_KEYS:
        test = Split(tensors["x_test"], tensors["y_test"])
        for trained, tested in zip(SPLIT_KEYS[:2], SPLIT_KEYS[2:], strict=True):
            old, new = tensors[trained], tensors[tested]
            if old.shape[1:] != new.shape[1:] or old.dtype != new.dtype:
                raise DataError(
                    source,
                    expected=f"{tested} like {trained} ({old.dtype}, samples of {tuple(old.shape[1:])})",
                    found=f"{new.dtype}, samples of {tuple(new.shape[1:])}",
                )
    class_names = () if y.is_floating_point() else _class_names(arrays, y, source)
    return data_in_memory(train, test, class_names)


def _array(value: Any, what: str) -> np.ndarray:
    try:
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(what, expected="an array of numbers", found=str(error)[:120]) from error
    if array.dtype.kind not in "buif":
        raise DataError(what, expected="numbers", found=f"dtype {array.dtype}")
    if array.size == 0:
        raise DataError(what, expected="at least one sample", found=f"shape {array.shape}")
    return array


def _inputs(value: Any, what: str) -> torch.Tensor:
    array = _array(value, what)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] < array.shape[1]:
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim not in (2, 4):
        raise DataError(
            what, expected="shape (N, features), (N, H, W), (N, C, H, W) or (N, H, W, C)", found=f"shape {array.shape}"
        )
    if array.ndim == 2 or array.dtype.kind == "f":
        return _finite(array, what)
    if array.dtype != np.uint8 and array.dtype.kind != "b" and (array.min() < 0 or array.max() > 255):
        raise DataError(what, expected="whole pixel values in 0..255", found=f"{array.min()}..{array.max()}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.uint8))


def _targets(value: Any, what: str) -> torch.Tensor:
    array = _array(value, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(what, expected="shape (N,)", found=f"shape {array.shape}")
    if array.dtype.kind == "f":
        return _finite(array, what)
    # Without the limit, an unsigned label beyond int64 would wrap around; it is out of range either way.
    return torch.from_numpy(np.minimum(array, np.iinfo(np.int64).max).astype(np.int64))


def _finite(array: np.ndarray, what: str) -> torch.Tensor:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        nan = int(np.isnan(values).sum())
        raise DataError(
            what,
            expected="finite float32 numbers",
            found=f"{nan} NaN and {int(bad.sum()) - nan} infinite or too large, "
            f"the first in sample {int(np.argwhere(bad)[0, 0])}",
        )
    return torch.from_numpy(values)


def _class_names(arrays: Mapping[str, Any], labels: torch.Tensor, source: str) -> tuple[str, ...]:
    present = torch.unique(labels)
    missing = torch.nonzero(present != torch.arange(len(present)))
    if len(missing):
        raise DataError(
            f"labels in {source}",
            expected="0 to classes-1, each in the training data",
            found=f"{present[missing[0]].item()} where {missing[0].item()} is next",
        )
    if CLASS_NAMES_KEY not in arrays:
        return tuple(map(str, range(len(present))))
    names = np.asarray(arrays[CLASS_NAMES_KEY])
    if names.shape != (len(present),) or names.dtype.kind not in "UO" or not all(isinstance(n, str) for n in names):
        raise DataError(
            f"{CLASS_NAMES_KEY} in {source}",
            expected=f"{len(present)} strings",
            found=f"dtype {names.dtype}, shape {names.shape}",
        )
    return tuple(map(str, names))
