"""Arrays of the user, checked and turned into a data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from inspect import isabstract
from typing import Any, Protocol

import numpy as np
import torch

from causalprune.base.errors import DataError, UsageError
from causalprune.base.options import one_of, require
from causalprune.data.names import TASK_CHOICES
from causalprune.data.normalization import stored
from causalprune.data.sources.targets import Targets, read_targets
from causalprune.data.splits import RawData, Split, data_in_memory
from causalprune.data.tasks.task import Task

VALIDATION = ("val", "valid", "validation")
"""What the arrays of a validation split are called after ``x_`` and ``y_``."""

EXPECTED = "the arrays x_train, y_train, x_test, y_test, or x and y"
CLASS_NAMES_KEY = "class_names"
VOCABULARY_KEY, TASK_KEY = "vocabulary", "task"
"""What only a function can add to its arrays."""

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


def read_arrays(arrays: Mapping[str, Any], source: str, *, channels: str = "auto", task: str = "auto") -> RawData:
    """Check arrays and convert them to the layout of a data set.

    Inputs of shape (N, F) are features, (N, H, W) gray images. In four axes, images have their channels in axis 1,
    as in PyTorch, or in axis 3. If exactly one of the two has 1 to 4 entries, these are the channels; otherwise the one
    that leaves square images; otherwise axis 1. A note says which it is. Whole numbers in 0..255 become uint8 images,
    floats float images. Floats are stored as :func:`causalprune.data.normalization.stored` decides for the training
    data. Targets are what :func:`causalprune.data.sources.targets.read_targets` describes.

    Args:
        arrays: ``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``x`` and ``y``, from which a test split is cut;
            beside the four, ``x_val`` and ``y_val`` are the validation split, and without a test split they are the
            test split; optionally ``class_names`` (K,); ``vocabulary``, if inputs are tokens, how many there are; and
            ``task``, a class of your own (:class:`~causalprune.data.tasks.task.Task`). Other keys are ignored.
        source: Where the arrays come from, for the error.
        channels: ``first`` for axis 1, ``last`` for axis 3; ``auto`` for the rule.
        task: The name of a task; ``auto`` for the rule of the targets.

    Raises:
        UsageError: ``channels`` is given for inputs without four axes, or ``task`` can't be.
        DataError: An array is missing, empty, not finite, or has a wrong length or shape, or targets can't be used.
    """
    splits = data_keys(arrays, source)
    keys = [key for pair in splits.values() for key in pair]
    parts = {key: _array(arrays[key], f"{key} in {source}") for key in keys}
    check_layout(parts, source)
    axis, notes = _channel_axis(parts[keys[0]].shape, f"{keys[0]} in {source}", channels)
    y = {key: parts[key] for key in keys[1::2]}
    targets = _targets(y, arrays, source, task)
    are_tokens = VOCABULARY_KEY in arrays or (targets.task is not None and targets.task.tokens)
    inputs: list[torch.Tensor] = []
    for key in keys[::2]:
        dtype = inputs[0].dtype if inputs else None
        what = f"{key} in {source}"
        inputs.append(_tokens(parts[key], what) if are_tokens else _inputs(parts[key], what, axis, dtype))
    task_of = targets.task
    vocabulary = _vocabulary(arrays, inputs, source) if are_tokens else 0
    if task_of is not None and task_of.tokens:
        vocabulary = max(vocabulary, 1 + max(int(tokens.max()) for tokens in targets.values))
        task_of = replace(task_of, num_outputs=vocabulary)
    found = dict(zip(splits, map(Split, inputs, targets.values), strict=True))
    if "validation" in found:
        said = (
            "is the validation split; `validation_fraction` has no effect" if "test" in found else "is the test split"
        )
        notes.append(f"{splits['validation'][0]} in {source}: {said}")
        if "test" not in found:
            found["test"] = found.pop("validation")
    return data_in_memory(
        found["train"],
        found.get("test"),
        targets.class_names,
        validation=found.get("validation"),
        notes=(*notes, *targets.notes),
        vocabulary=vocabulary,
        task=task_of,
    )


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
        what, is_input = f"{key} in {source}", key in keys[::2]
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
    for inputs, targets in zip(keys[::2], keys[1::2], strict=True):
        shape, labels = parts[inputs].shape, parts[targets].shape
        if len(labels) == 3 and labels[1:] not in (shape[1:], shape[2:], shape[1:3]):
            raise DataError(
                f"{targets} in {source}",
                expected=f"shape (N,), (N, K), or (N, H, W) beside images of that size, not {shape}",
                found=f"shape {labels}",
            )
        lengths = parts[inputs].shape[0], parts[targets].shape[0]
        if lengths[0] != lengths[1]:
            raise DataError(
                source, expected=f"{inputs} and {targets} of one length", found=f"{lengths[0]} and {lengths[1]}"
            )
    for tested in keys[2:]:
        is_input = tested in keys[::2]
        trained = keys[0 if is_input else 1]
        old, new = parts[trained], parts[tested]
        mixed = (old.dtype.kind in "SU") != (new.dtype.kind in "SU")
        if is_input:
            # Images of whole numbers are stored as bytes; features are floats, whatever they come as.
            mixed = len(old.shape) > 2 and (old.dtype.kind == "f") != (new.dtype.kind == "f")
        if mixed or (is_input and old.shape[1:] != new.shape[1:]):
            raise DataError(
                source,
                expected=f"{tested} like {trained} ({old.dtype}, samples of {old.shape[1:]})",
                found=f"{new.dtype}, samples of {new.shape[1:]}",
            )


def _array(value: Any, what: str) -> np.ndarray:
    try:
        if isinstance(value, torch.Tensor):
            # NumPy has no bfloat16.
            value = (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy()
        array = np.asarray(value)
        if array.dtype.kind == "O":
            # A column of pandas, for example; None and mixtures stay objects, which are refused.
            kinds = {isinstance(item, str) for item in array.ravel().tolist()}
            array = np.asarray(array.tolist()) if len(kinds) == 1 else array
        return array
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(what, expected="an array of numbers", found=str(error)[:120]) from error


def _channel_axis(shape: tuple[int, ...], what: str, channels: str) -> tuple[int, list[str]]:
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


def _targets(y: Mapping[str, np.ndarray], arrays: Mapping[str, Any], source: str, task: str) -> Targets:
    own, class_names = arrays.get(TASK_KEY), arrays.get(CLASS_NAMES_KEY)
    if own is None:
        require("`task`", task, one_of(TASK_CHOICES))
        return read_targets(y, source, class_names=class_names, task=task)
    whole = isinstance(own, type) and issubclass(own, Task) and not isabstract(own)
    if not whole or not hasattr(own, "name") or not hasattr(own, "headline"):
        expected = "a whole subclass of causalprune.data.tasks.task.Task, with a name and a headline"
        raise DataError(f"{TASK_KEY} in {source}", expected=expected, found=f"{own!r}"[:80])
    values, read = own.read(y, source, class_names)
    return Targets(values, read.class_names, (), read)


def _vocabulary(arrays: Mapping[str, Any], inputs: list[torch.Tensor], source: str) -> int:
    seen = 1 + max(int(tokens.max()) for tokens in inputs)
    said = arrays.get(VOCABULARY_KEY, seen)
    if not isinstance(said, int | np.integer) or said < seen:
        what = f"{VOCABULARY_KEY} in {source}"
        raise DataError(what, expected=f"a number of at least {seen}, as the tokens need", found=f"{said!r}"[:80])
    return int(said)


def _tokens(array: np.ndarray, what: str) -> torch.Tensor:
    if array.ndim != 2 or array.dtype.kind not in "ui" or array.min() < 0:
        found = f"shape {array.shape}, dtype {array.dtype}, the least {array.min()}"
        raise DataError(what, expected="tokens: whole numbers from 0, shape (N, length)", found=found)
    return torch.from_numpy(array.astype(np.int64))


def _inputs(array: np.ndarray, what: str, channel_axis: int, dtype: torch.dtype | None) -> torch.Tensor:
    """(N, F) or (N, C, H, W); in ``dtype``, if the training data has decided that."""
    if array.ndim == 3:
        array = array[:, None]
    array = np.moveaxis(array, channel_axis, 1)
    if array.ndim == 2 or array.dtype.kind == "f":
        return stored(array, what, dtype)
    if array.dtype != np.uint8 and array.dtype.kind != "b" and (array.min() < 0 or array.max() > 255):
        raise DataError(
            what,
            expected="whole pixel values in 0..255",
            found=f"{array.min()}..{array.max()}",
            remedy="make them floats",
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.uint8))
