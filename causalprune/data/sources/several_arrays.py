"""Several inputs of the user: arrays by name or in a tuple, each as a network's argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from causalprune.base.compute.inputs import Inputs
from causalprune.base.errors import DataError
from causalprune.data.normalization import stored

_MOST_AXES = 8


def is_several(value: Any) -> bool:
    """Whether inputs are several: a mapping of arrays, or a tuple of them; a list is an array."""
    arrays = isinstance(value, tuple) and bool(value) and all(isinstance(v, np.ndarray | torch.Tensor) for v in value)
    return isinstance(value, Mapping) or arrays


def read_several(given: Mapping[str, Any], source: str) -> dict[str, Inputs]:
    """Check several inputs, and make the tensors of them that a network is called with.

    The dtype says what an input is. Floats and bytes (uint8) are standardized later, floats held as
    :func:`causalprune.data.normalization.stored` decides for the training data. Other whole numbers become int64, and
    bools stay bools.

    Args:
        given: The inputs of each split, that of the training data first, by the name of the array.
        source: Where they come from, for the error.

    Raises:
        DataError: An input isn't numbers or bools of one length, has whole numbers below 0, or isn't the same in every
            split.
    """
    whole: dict[str, Mapping[Any, np.ndarray]] = {}
    for key, value in given.items():
        if not is_several(value):
            raise DataError(source, expected=f"{key} of several inputs, as in the training data", found="one")
        whole[key] = {name: _array(part, _what(key, name, source)) for name, part in _items(value)}
    (first, train), *rest = whole.items()
    if not train or not all(isinstance(name, str | int) for name in train):
        raise DataError(f"{first} in {source}", expected="inputs by their names", found=f"{list(train)}"[:80])
    made: dict[str, dict[Any, torch.Tensor]] = {
        first: {n: _tensor(a, _what(first, n, source)) for n, a in train.items()}
    }
    for key, parts in rest:
        if list(parts) != list(train) and set(parts) == set(train):
            parts = {name: parts[name] for name in train}
        if list(parts) != list(train):
            expected = f"the inputs of {first}, {', '.join(map(str, train))}"
            raise DataError(f"{key} in {source}", expected=expected, found=", ".join(map(str, parts))[:100])
        made[key] = {n: _like(made[first][n], a, train[n], _what(key, n, source)) for n, a in parts.items()}
    for key, tensors in made.items():
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"{key} in {source}", expected="inputs of one length", found=f"{lengths}"[:100])
    by_name = isinstance(given[first], Mapping)
    return {key: tensors if by_name else tuple(tensors.values()) for key, tensors in made.items()}


def vocabularies(said: Any, inputs: Sequence[Inputs], source: str) -> tuple[int, ...]:
    """How many whole numbers each input has at least, by what a factory says beside its arrays.

    Args:
        said: By name, or in the order of the inputs; None if nothing is said.
        inputs: Those of each split.
        source: Where they come from, for the error.

    Raises:
        DataError: Something else, or fewer than the data need.
    """
    names: list[Any] = list(inputs[0]) if isinstance(inputs[0], Mapping) else list(range(len(inputs[0])))
    given = dict(_items(said)) if isinstance(said, Mapping | tuple | list) else {}
    whole = all(isinstance(n, int | np.integer) and n >= 0 for n in given.values())
    if (said is not None and not given) or not whole or not set(given) <= set(names):
        expected = f"numbers for the inputs {', '.join(map(str, names))}"
        raise DataError(f"vocabulary in {source}", expected=expected, found=f"{said!r}"[:80])
    for name, least in given.items():
        for parts in inputs:
            part: torch.Tensor = parts[name]
            if part.dtype == torch.int64 and least <= int(part.max()):
                expected = f"at least {int(part.max()) + 1} for {name}, as its numbers need"
                raise DataError(f"vocabulary in {source}", expected=expected, found=f"{least}")
    return tuple(int(given.get(name, 0)) for name in names)


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items() if isinstance(value, Mapping) else enumerate(value))


def _what(key: str, name: Any, source: str) -> str:
    return f"input {name} of {key} in {source}"


def _array(value: Any, what: str) -> np.ndarray:
    try:
        if isinstance(value, torch.Tensor):
            # NumPy has no bfloat16.
            value = (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(what, expected="an array of numbers", found=str(error)[:120]) from error
    if array.dtype.kind not in "buif" or not 0 < array.ndim <= _MOST_AXES:
        expected = "numbers or bools, one or more for each sample"
        raise DataError(what, expected=expected, found=f"dtype {array.dtype}, shape {array.shape}")
    if array.size == 0:
        raise DataError(what, expected="at least one sample", found=f"shape {array.shape}")
    return array


def _tensor(array: np.ndarray, what: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    if array.dtype.kind == "f":
        # As normalization sees them: one feature or channel where the axes name none.
        single = array.ndim in (1, 3)
        found = stored(array[:, None] if single else array, what, dtype)
        return found[:, 0] if single else found
    if array.dtype.kind == "b" or array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    if array.min() < 0:
        raise DataError(
            what,
            expected="whole numbers from 0, which a network looks up",
            found=f"{array.min()}",
            remedy="make them floats if they are quantities",
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))


def _like(train: torch.Tensor, array: np.ndarray, trained: np.ndarray, what: str) -> torch.Tensor:
    """The same input of another split."""
    found = _tensor(array, what, train.dtype if train.is_floating_point() else None)
    if found.dtype != train.dtype or found.shape[1:] != train.shape[1:]:
        raise DataError(
            what,
            expected=f"{trained.dtype}, samples of {trained.shape[1:]}, as in the training data",
            found=f"{array.dtype}, samples of {array.shape[1:]}",
        )
    return found
