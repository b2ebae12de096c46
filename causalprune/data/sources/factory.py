"""A data set from the user's own function."""

from __future__ import annotations

from collections.abc import Mapping

from causalprune.base.errors import CausalpruneError, CorruptError, DataError, UsageError
from causalprune.base.user_code import import_user_module
from causalprune.data.sources.arrays import CUT_KEYS, SPLIT_KEYS, read_arrays
from causalprune.data.splits import RawData


def read_factory(name: str, *, trust_code: bool) -> RawData:
    """Call ``package.module:factory`` without arguments and read the mapping of arrays that it returns.

    The module is imported by :func:`causalprune.base.user_code.import_user_module`. The mapping is what
    :func:`causalprune.data.sources.arrays.read_arrays` describes; its values are NumPy arrays, tensors or nested
    lists.

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
