"""Targets in any form that people keep labels in: the task that they mean, and the number of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from causalprune.base.errors import DataError, UsageError
from causalprune.data.names import TASKS
from causalprune.data.normalization import stored
from causalprune.data.tasks.task import Task

SAMPLES_PER_CLASS = 10
"""Values that only may be labels (whole numbers that are floats or don't count from 0, strings) are taken for labels if
each occurs this often on average."""

SHOWN_LABELS = 10
"""Up to this many labels are listed one by one."""


@dataclass(frozen=True)
class Targets:
    """The targets of a data set.

    Attributes:
        values: Those of the training data, then those of the other splits: (N,) int64 labels, or (N,) float32 or
            float64 values.
        class_names: One per class, in label order; empty for a regression.
        notes: What was decided, a line each.
        task: What the targets are, unless the class names tell: labels if there are any, and quantities otherwise.
    """

    values: tuple[torch.Tensor, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    task: Task | None = None


def read_targets(arrays: Mapping[str, np.ndarray], source: str, *, class_names: Any = None, task: str) -> Targets:
    """Decide what the targets are, and number the classes.

    Whole numbers of any integer dtype and bools are labels, and so are strings and one-hot rows. Floats are values of a
    regression, unless all are whole numbers and each occurs :data:`SAMPLES_PER_CLASS` times on average; then they are
    labels. Labels that aren't 0 to K−1 have to occur as often, or ``task`` has to say that they are labels; they are
    numbered from 0 in increasing order, or strings in the order of ``class_names``. With ``class_names``, a class may
    lack training samples. Rows of other numbers than one-hot are quantities if they are floats; labels at each pixel
    are a segmentation. Any other task has to be said, and reads the arrays itself.

    Args:
        arrays: Numbers or strings, (N,), (N, 1), one-hot (N, K) or as ``task`` expects them, by name: the training
            targets, then those of other splits.
        source: Where they come from, for messages.
        class_names: (K,) strings, if the classes have names.
        task: The name of a task, or ``auto``.

    Raises:
        UsageError: ``task`` is a regression, of strings or one-hot rows.
        DataError: Targets that are neither labels nor numbers, a test label that isn't in the training data, or class
            names that don't go with the labels.
    """
    subjects = [f"{name} in {source}" for name in arrays]
    other, said = _other_task(next(iter(arrays.values())), subjects[0], task)
    if other:
        read: type[Task] = TASKS.load(other)
        values, kind = read.read(arrays, source, class_names)
        return Targets(values, kind.class_names, said, kind)
    columns = [_column(array, what) for array, what in zip(arrays.values(), subjects, strict=True)]
    width = max(next(iter(arrays.values())).shape[1:], default=1)
    if width > 1:
        if task == "regression":
            raise UsageError("`task`", expected=f"classification for {subjects[0]}, which is one-hot", found=task)
        labels, notes = list(range(width)), [f"{subjects[0]}: one-hot, so its columns are the classes"]
    else:
        labels = np.unique(columns[0]).tolist()
        quantities, notes = _are_quantities(columns, labels, subjects[0], task)
        if quantities:
            train = stored(columns[0][:, None], subjects[0])[:, 0]
            tests = (stored(c[:, None], w, train.dtype)[:, 0] for c, w in zip(columns[1:], subjects[1:], strict=True))
            return Targets((train, *tests), (), tuple(notes))
    names = None if class_names is None else _names(class_names, labels, source)
    numbers = {label: number for number, label in enumerate(labels)}
    if names is not None and isinstance(labels[0], str):
        numbers = {name: number for number, name in enumerate(names)}
    elif names is not None and all(0 <= label < len(names) for label in labels):
        numbers = {number: number for number in range(len(names))}
    if any(label != number for label, number in numbers.items()):
        notes.append(f"{subjects[0]}: {_mapping(list(numbers))}")
    known = "only labels that are in class_names" if names else "only labels of the training data"
    encoded = (_encoded(column, numbers, what, known) for column, what in zip(columns, subjects, strict=True))
    return Targets(tuple(encoded), names or tuple(map(_text, labels)), tuple(notes))


def _other_task(array: np.ndarray, what: str, task: str) -> tuple[str, tuple[str, ...]]:
    """The task of arrays that have more than a label or a quantity for each sample, and what has to be said about it.

    Empty for one label or quantity, and for one-hot rows.
    """
    usual = ("auto", "classification", "regression")
    if task not in usual:
        return task, ()
    if array.dtype.kind not in "buif" or array.ndim == 1 or array.shape[1:] == (1,):
        return "", ()
    if array.ndim == 3:
        if task != "auto" or array.dtype.kind == "f":
            raise DataError(
                what,
                expected="labels or quantities, shape (N,) or (N, K)",
                found=f"shape {array.shape}",
                remedy="pass `task=segmentation` if they are whole numbers, a label at each pixel",
            )
        return "segmentation", (f"{what}: of shape {array.shape}, taken for a label at each pixel",)
    if task == "classification" or _is_one_hot(array):
        return "", ()
    if task == "regression":
        return "regression", ()
    if array.dtype.kind == "f" and not np.isin(array, (0, 1)).all():
        return "regression", (f"{what}: floats, taken for {array.shape[1]} quantities",)
    raise DataError(
        what,
        expected="one target per sample, shape (N,), or one-hot rows: a 1 and zeros",
        found=f"shape {array.shape}, and another row {_first_odd_row(array)}",
        remedy="pass `task=multi-label` for rows of 0 and 1, regression for quantities, next-token for a text",
    )


def _first_odd_row(array: np.ndarray) -> int | None:
    """The first row that isn't a 1 and zeros."""
    ones = array == 1
    wrong = np.flatnonzero((ones.sum(1) != 1) | ~(ones | (array == 0)).all(1))
    return int(wrong[0]) if len(wrong) else None


def _is_one_hot(array: np.ndarray) -> bool:
    return _first_odd_row(array) is None


def _are_quantities(columns: list[np.ndarray], labels: list[Any], what: str, task: str) -> tuple[bool, list[str]]:
    """Whether it is a regression, and what has to be said about that."""
    kind = columns[0].dtype.kind
    if task == "regression":
        if kind == "U":
            raise UsageError("`task`", expected=f"classification for {what}, which are strings", found=task)
        return True, []
    if kind == "f":
        together = np.concatenate(columns)
        broken = together[~np.isfinite(together) | (together != np.rint(together))]
        if len(broken) and task == "classification":
            raise DataError(what, expected="labels: whole numbers, strings or one-hot rows", found=f"{broken[0]:g}")
        if len(broken):
            return True, []
    often = len(labels) * SAMPLES_PER_CLASS <= len(columns[0])
    if task == "classification" or kind == "b":
        return False, []
    if kind == "f" and often and len(labels) > 1:
        said = f"{what}: whole numbers as floats are taken for labels; pass `task=regression` if they are quantities"
        return False, [said]
    if kind == "f":
        said = f"{what}: floats are taken for quantities, although whole numbers; if they are labels, "
        return True, [said + "pass `task=classification`"]
    if not often and labels != list(range(len(labels))):
        raise DataError(
            what,
            expected=f"labels 0 to K-1, or others that occur {SAMPLES_PER_CLASS} times on average",
            found=f"{len(labels)} different ones in {len(columns[0])} samples",
            remedy="pass `task=classification` if they are labels"
            + ("" if kind == "U" else ", or `task=regression` if they are quantities"),
        )
    return False, []


def _column(array: np.ndarray, what: str) -> np.ndarray:
    """(N,) numbers or Unicode strings; for one-hot rows the column of the 1."""
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(what, expected="strings in UTF-8", found=str(error)[:80]) from error
    if array.ndim == 1 or array.shape[1] == 1:
        return array.reshape(len(array))
    odd = _first_odd_row(array)
    if odd is not None:
        raise DataError(
            what,
            expected="one target per sample, shape (N,), or one-hot rows: a 1 and zeros",
            found=f"shape {array.shape}, and another row {odd}",
        )
    labels: np.ndarray = (array == 1).argmax(1)
    return labels


def _names(given: Any, labels: Sequence[Any], source: str) -> tuple[str, ...]:
    names = np.asarray(given)
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    fitting = names.ndim == 1 and names.dtype.kind in "UO" and all(isinstance(name, str) for name in names.tolist())
    expected = f"{len(labels)} strings"
    if isinstance(labels[0], str):
        expected = "strings, each once"
        fitting = fitting and len(set(names.tolist())) == len(names)
    else:
        fitting = fitting and (len(names) == len(labels) or all(0 <= label < len(names) for label in labels))
    if not fitting:
        raise DataError(
            f"class_names in {source}", expected=expected, found=f"dtype {names.dtype}, shape {names.shape}"
        )
    return tuple(map(str, names))


def _encoded(column: np.ndarray, numbers: Mapping[Any, int], what: str, known: str) -> torch.Tensor:
    # Through Python's numbers, which compare right whatever the dtypes are.
    present, places = np.unique(column, return_inverse=True)
    codes = [numbers.get(label, -1) for label in present.tolist()]
    if -1 in codes:
        raise DataError(what, expected=known, found=f"the label {present.tolist()[codes.index(-1)]!r}")
    return torch.from_numpy(np.asarray(codes, dtype=np.int64)[places.reshape(-1)])


def _mapping(labels: list[Any]) -> str:
    shown = [repr(label) if isinstance(label, str) else _text(label) for label in labels]
    if len(labels) <= SHOWN_LABELS:
        return "labels → classes: " + ", ".join(f"{label} → {number}" for number, label in enumerate(shown))
    return f"labels → classes: {shown[0]} → 0, {shown[1]} → 1, …, {shown[-1]} → {len(shown) - 1}"


def _text(label: Any) -> str:
    return label if isinstance(label, str) else str(int(label))
