"""Arrays of the user, checked and turned into a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import isabstract
from typing import Any

import numpy as np
import torch

from causalprune.base.compute.inputs import Inputs, count_of, parts_of
from causalprune.base.errors import DataError, UsageError
from causalprune.base.options import one_of, require
from causalprune.data.names import TASK_CHOICES, TASKS
from causalprune.data.normalization import stored
from causalprune.data.sources.layout import (
    channel_axis,
    check_array,
    check_layout,
    check_lengths,
    check_strings,
    data_keys,
)
from causalprune.data.sources.several_arrays import is_several, read_several, vocabularies
from causalprune.data.sources.targets import Targets, read_targets
from causalprune.data.splits import RawData, Split, data_in_memory
from causalprune.data.tasks.task import Task

CLASS_NAMES_KEY = "class_names"
VOCABULARY_KEY, TASK_KEY = "vocabulary", "task"
"""What only a function can add to its arrays."""


def read_arrays(
    arrays: Mapping[str, Any], source: str, *, channels: str = "auto", task: str = "auto", integers: str = "auto"
) -> RawData:
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
            ``task``, its name, or a class of your own (:class:`~causalprune.data.tasks.task.Task`) or an object of it.
            Other keys are ignored. Several inputs are a mapping or a tuple of arrays, see
            :func:`causalprune.data.sources.several_arrays.read_several`.
        source: Where the arrays come from, for the error.
        channels: ``first`` for axis 1, ``last`` for axis 3; ``auto`` for the rule.
        task: The name of a task; ``auto`` for the rule of the targets.
        integers: ``indices`` if whole numbers (N, T), but not bytes, stay what they are, as tokens do; ``auto`` and
            ``quantities`` if they are standardized.

    Raises:
        UsageError: ``channels`` is given for inputs without four axes, or ``task`` can't be.
        DataError: An array is missing, empty, not finite, or has a wrong length or shape, or targets can't be used.
    """
    splits = data_keys(arrays, source)
    keys = [key for pair in splits.values() for key in pair]
    y = {key: _array(arrays[key], f"{key} in {source}") for key in keys[1::2]}
    notes: list[str] = []
    vocabulary: int | tuple[int, ...]
    if is_several(arrays[keys[0]]):
        if channels != "auto":
            raise UsageError("`channels`", expected=f"auto for {source}, of several inputs", found=channels)
        inputs, targets, vocabulary = _read_several(arrays, keys, y, source, task)
    else:
        parts = {key: y[key] if key in y else _array(arrays[key], f"{key} in {source}") for key in keys}
        check_layout(parts, source)
        axis, notes = channel_axis(parts[keys[0]].shape, f"{keys[0]} in {source}", channels)
        targets = _targets(y, arrays, source, task)
        inputs, vocabulary = _read_single(parts, keys[::2], targets.task, arrays, source, axis, integers)
    if targets.task is not None and targets.task.tokens:
        targets, vocabulary = _told_tokens(targets, vocabulary)
        notes += _unshifted(inputs[0], targets.values[0], f"{keys[1]} in {source}")
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
        task=targets.task,
    )


def _read_single(
    parts: Mapping[str, np.ndarray],
    keys: Sequence[str],
    task: Task | None,
    arrays: Mapping[str, Any],
    source: str,
    axis: int,
    integers: str,
) -> tuple[list[Inputs], int]:
    """The inputs of each split, one tensor each, and how many tokens there are if they are tokens."""
    kept = integers == "indices" and _are_integers(parts[keys[0]])
    said = (VOCABULARY_KEY in arrays and integers != "quantities") or (task is not None and task.tokens)
    are_tokens = kept or said
    remedy = "" if said else "pass `integers=quantities` if they aren't looked up, but standardized"
    inputs: list[torch.Tensor] = []
    for key in keys:
        dtype = inputs[0].dtype if inputs else None
        what = f"{key} in {source}"
        inputs.append(_tokens(parts[key], what, remedy) if are_tokens else _inputs(parts[key], what, axis, dtype))
    return [*inputs], _vocabulary(arrays, inputs, source) if are_tokens else 0


def _are_integers(array: np.ndarray) -> bool:
    """Whether it is rows of whole numbers; bytes and bools are quantities."""
    return array.ndim == 2 and array.dtype.kind in "ui" and array.dtype != np.uint8


def _read_several(
    arrays: Mapping[str, Any], keys: Sequence[str], y: Mapping[str, np.ndarray], source: str, task: str
) -> tuple[list[Inputs], Targets, tuple[int, ...]]:
    """The inputs of each split, its targets, and how many whole numbers each input has at least."""
    made = read_several({key: arrays[key] for key in keys[::2]}, source)
    for inputs, targets in zip(keys[::2], keys[1::2], strict=True):
        check_array(y[targets], f"{targets} in {source}", is_input=False)
        check_lengths(count_of(made[inputs]), len(y[targets]), (inputs, targets), source)
        check_strings(y[keys[1]], y[targets], (keys[1], targets), source)
    inputs_of = list(made.values())
    said = vocabularies(arrays.get(VOCABULARY_KEY), inputs_of, source)
    return inputs_of, _targets(y, arrays, source, task), said


def _told_tokens(targets: Targets, vocabulary: int | tuple[int, ...]) -> tuple[Targets, int | tuple[int, ...]]:
    """Targets with a task that knows how many tokens there are in inputs and targets, which are of one kind."""
    assert targets.task is not None
    several = isinstance(vocabulary, tuple)
    of_inputs = max(vocabulary) if isinstance(vocabulary, tuple) else vocabulary
    count = max(of_inputs, 1 + max(int(tokens.max()) for tokens in targets.values))
    told = replace(targets, task=replace(targets.task, num_outputs=count))
    return told, vocabulary if several else count


def _unshifted(inputs: Inputs, targets: torch.Tensor, what: str) -> list[str]:
    """A note on a text whose targets are its inputs, as for networks that shift them by themselves."""
    counted = targets >= 0
    equal = any(part.shape == targets.shape and bool((part == targets)[counted].all()) for part in parts_of(inputs))
    expected = "each target should be the token one place later, unless nothing is to be predicted"
    return [f"{what}: the same tokens as in the input; {expected}"] if equal else []


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


def _targets(y: Mapping[str, np.ndarray], arrays: Mapping[str, Any], source: str, task: str) -> Targets:
    own, class_names = arrays.get(TASK_KEY), arrays.get(CLASS_NAMES_KEY)
    if isinstance(own, str) and own in TASKS:
        task = str(own) if task == "auto" else task
        own = None
    if own is None:
        require("`task`", task, one_of(TASK_CHOICES))
        return read_targets(y, source, class_names=class_names, task=task)
    kind = type(own) if isinstance(own, Task) else own
    whole = isinstance(kind, type) and issubclass(kind, Task) and not isabstract(kind)
    if not whole or not hasattr(kind, "name") or not hasattr(kind, "headline"):
        expected = "the name of a task, or a whole subclass of causalprune.data.tasks.task.Task or an object of it, "
        expected += "with a name and a headline"
        raise DataError(f"{TASK_KEY} in {source}", expected=expected, found=f"{own!r}"[:80])
    values, read = kind.read(y, source, class_names)
    if isinstance(own, Task):
        # What it was made with stays.
        read = replace(own, class_names=read.class_names, num_outputs=read.num_outputs)
    return Targets(values, read.class_names, (), read)


def _vocabulary(arrays: Mapping[str, Any], inputs: list[torch.Tensor], source: str) -> int:
    seen = 1 + max(int(tokens.max()) for tokens in inputs)
    said = arrays.get(VOCABULARY_KEY, seen)
    if not isinstance(said, int | np.integer) or said < seen:
        what = f"{VOCABULARY_KEY} in {source}"
        raise DataError(what, expected=f"a number of at least {seen}, as the tokens need", found=f"{said!r}"[:80])
    return int(said)


def _tokens(array: np.ndarray, what: str, remedy: str) -> torch.Tensor:
    if array.ndim != 2 or array.dtype.kind not in "ui" or array.min() < 0:
        found = f"shape {array.shape}, dtype {array.dtype}, the least {array.min()}"
        raise DataError(
            what,
            expected="tokens: whole numbers from 0, shape (N, length)",
            found=found,
            remedy=remedy,
        )
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
