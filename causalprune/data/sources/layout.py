"""The names, dtypes and shapes of the user's arrays, checked before an array is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from causalprune.base.errors import DataError, UsageError

VALIDATION = ("val", "valid", "validation")
"""What the arrays of a validation split are called after ``x_`` and ``y_``."""

EXPECTED = "the arrays x_train, y_train, x_test, y_test, or x and y"
MOST_CHANNELS = 4
"""An axis of 1 to 4 is taken for channels: gray, gray with alpha, RGB, RGB with alpha."""


class Layout(Protocol):
    """What the layout of a data set is checked by: an array, or the header of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the items."""


def data_keys(arrays: Mapping[str, Any], source: str) -> dict[str, tuple[str, str]]:
    """The names of inputs and targets by split: ``train``, and unless that is to be cut, ``validation`` or ``test``.

    Raises:
        DataError: One is missing.
    """
    splits = {"train": ("x", "y")}
    if "x_train" in arrays:
        splits = {"train": ("x_train", "y_train")}
        validation = [name for name in VALIDATION if f"x_{name}" in arrays]
        if len(validation) > 1:
            raise DataError(source, expected="one validation split", found=" and ".join(f"x_{n}" for n in validation))
        if validation:
            splits["validation"] = (f"x_{validation[0]}", f"y_{validation[0]}")
        if "x_test" in arrays or not validation:
            splits["test"] = ("x_test", "y_test")
    if any(key not in arrays for pair in splits.values() for key in pair):
        found = ", ".join(sorted(map(str, arrays)))[:200] or "none"
        raise DataError(source, expected=EXPECTED, found=found)
    return splits


def check_layout(parts: Mapping[str, Layout], source: str) -> None:
    """Check what shapes and dtypes tell, which is known before an array is read.

    Args:
        parts: Inputs and targets, in turn.
        source: Where they come from, for the error.

    Raises:
        DataError: An array is empty, isn't numbers (or strings, for targets), or doesn't go with the others.
    """
    keys = tuple(parts)
    for key, array in parts.items():
        check_array(array, f"{key} in {source}", is_input=key in keys[::2])
    for inputs, targets in zip(keys[::2], keys[1::2], strict=True):
        shape, labels = parts[inputs].shape, parts[targets].shape
        if len(labels) == 3 and labels[1:] not in (shape[1:], shape[2:], shape[1:3]):
            raise DataError(
                f"{targets} in {source}",
                expected=f"shape (N,), (N, K), or (N, H, W) beside images of that size, not {shape}",
                found=f"shape {labels}",
            )
        check_lengths(shape[0], labels[0], (inputs, targets), source)
    for inputs, targets in zip(keys[2::2], keys[3::2], strict=True):
        old, new = parts[keys[0]], parts[inputs]
        # Images of whole numbers are stored as bytes; features are floats, whatever they come as.
        mixed = len(old.shape) > 2 and (old.dtype.kind == "f") != (new.dtype.kind == "f")
        if mixed or old.shape[1:] != new.shape[1:]:
            raise _unlike(old, new, (keys[0], inputs), source)
        check_strings(parts[keys[1]], parts[targets], (keys[1], targets), source)


def check_array(array: Layout, what: str, *, is_input: bool) -> None:
    """Require numbers (or strings, for targets) of a shape that inputs or targets can have, and at least one."""
    if array.dtype.kind not in ("buif" if is_input else "buifSU"):
        expected = "numbers" if is_input else "numbers or strings"
        raise DataError(what, expected=expected, found=f"dtype {array.dtype}")
    if len(array.shape) not in ((2, 3, 4) if is_input else (1, 2, 3)):
        shapes = "(N, features), (N, H, W), (N, C, H, W) or (N, H, W, C)" if is_input else "(N,), (N, K), (N, H, W)"
        raise DataError(what, expected=f"shape {shapes}", found=f"shape {array.shape}")
    if array.dtype.kind in "SU" and math.prod(array.shape[1:]) > 1:
        raise DataError(what, expected="shape (N,) for strings", found=f"shape {array.shape}")
    if math.prod(array.shape) == 0:
        raise DataError(what, expected="at least one sample", found=f"shape {array.shape}")


def check_lengths(inputs: int, targets: int, names: tuple[str, str], source: str) -> None:
    """Require as many inputs as targets."""
    if inputs != targets:
        raise DataError(source, expected=f"{' and '.join(names)} of one length", found=f"{inputs} and {targets}")


def check_strings(old: Layout, new: Layout, names: tuple[str, str], source: str) -> None:
    """Require strings in all splits, or in none."""
    if (old.dtype.kind in "SU") != (new.dtype.kind in "SU"):
        raise _unlike(old, new, names, source)


def _unlike(old: Layout, new: Layout, names: tuple[str, str], source: str) -> DataError:
    return DataError(
        source,
        expected=f"{names[1]} like {names[0]} ({old.dtype}, samples of {old.shape[1:]})",
        found=f"{new.dtype}, samples of {new.shape[1:]}",
    )


def channel_axis(shape: tuple[int, ...], what: str, channels: str) -> tuple[int, list[str]]:
    """The axis of the channels, and a note if that was decided here."""
    if len(shape) != 4:
        if channels != "auto":
            raise UsageError("`channels`", expected=f"auto for {what}, of shape {shape}", found=channels)
        return 1, []
    if channels != "auto":
        return (1 if channels == "first" else 3), []
    few = [axis for axis in (1, 3) if shape[axis] <= MOST_CHANNELS]
    square = [axis for axis, sides in ((1, shape[2:]), (3, shape[1:3])) if sides[0] == sides[1]]
    axis = next((found[0] for found in (few, square) if len(found) == 1), 1)
    said, other = ("first", "last") if axis == 1 else ("last", "first")
    note = f"{what}: of {shape}, axis {axis} is taken for the channels ({said}); if it isn't, pass `channels={other}`"
    return axis, [note]
