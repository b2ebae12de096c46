"""Which parameters belong together: single ones, output units, or whole layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from causalprune.errors import MismatchError, UsageError
from causalprune.options import one_of
from causalprune.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.names import GRANULARITIES


def group_ids(
    index: ParameterIndex, granularity: str, active: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.int64], Sequence[str]]:
    """Number the groups of parameters, in the order of the index.

    ``parameter``: each by itself. ``filter`` and ``neuron``, two names for one thing: the weights of one output unit, a
    filter of a Conv layer or a neuron of a Linear layer. ``layer``: one whole tensor.

    Args:
        index: The prunable parameters.
        granularity: One of the four.
        active: (P,) bool; only these parameters, and only the groups that have one of them, are numbered.

    Returns:
        The group of each (active) parameter, (P,) int64 with values 0 … G−1, and the G groups' labels, such as
        ``conv1.weight[3]``, made when they are asked for.

    Raises:
        UsageError: An unknown granularity.
        MismatchError: ``active`` of another length, or a granularity that the network lacks.
    """
    counts = groups_per_tensor(index, granularity)
    first = 0
    parts: list[npt.NDArray[np.int64]] = []
    for entry, count in zip(index, counts, strict=True):
        parts.append(_within(entry, granularity) + first)
        first += count
    ids = np.concatenate(parts)
    if active is None:
        return ids, _Labels(index, granularity, np.arange(first))
    if active.shape != (index.total,):
        raise MismatchError("active parameters", expected=f"shape ({index.total},)", found=f"{active.shape}")
    ids = ids[active]
    is_present = np.zeros(first, dtype=bool)
    is_present[ids] = True
    renumbered = np.cumsum(is_present) - 1
    return renumbered[ids], _Labels(index, granularity, np.flatnonzero(is_present))


def groups_per_tensor(index: ParameterIndex, granularity: str) -> list[int]:
    """How many groups each prunable tensor has.

    Raises:
        UsageError: An unknown granularity.
        MismatchError: Filters of a network without Conv layers, or neurons of one without Linear layers.
    """
    expected = one_of(GRANULARITIES)(granularity)
    if expected:
        raise UsageError("granularity", expected=expected, found=repr(granularity))
    wanted = {"filter": ("Conv", True), "neuron": ("Linear", False)}.get(granularity)
    if wanted is not None and not any((len(entry.shape) > 2) == wanted[1] for entry in index):
        other = "neuron" if granularity == "filter" else "filter"
        raise MismatchError(
            f"granularity {granularity}",
            expected=f"a network with {wanted[0]} layers",
            found="none",
            remedy=f"use --granularity {other}",
        )
    if granularity == "parameter":
        return [entry.size for entry in index]
    return [1 if granularity == "layer" else entry.num_units for entry in index]


def output_units(entry: ParameterEntry) -> npt.NDArray[np.int64]:
    """The filter or neuron that each element of a tensor belongs to, in flat order."""
    inner = math.prod(entry.shape[entry.filter_axis + 1 :])
    return np.arange(entry.size) // inner % entry.shape[entry.filter_axis]


def _within(entry: ParameterEntry, granularity: str) -> npt.NDArray[np.int64]:
    """Group within the tensor of each of its elements, in flat order."""
    if granularity == "parameter":
        return np.arange(entry.size)
    if granularity == "layer":
        return np.zeros(entry.size, dtype=np.int64)
    return output_units(entry)


class _Labels(Sequence[str]):
    """Names of the groups, made on access: there may be as many as parameters."""

    def __init__(self, index: ParameterIndex, granularity: str, present: npt.NDArray[np.int64]) -> None:
        self._index = index
        self._granularity = granularity
        self._starts = np.cumsum([0, *groups_per_tensor(index, granularity)])
        self._present = present

    def __len__(self) -> int:
        return len(self._present)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        group = int(self._present[position])
        tensor = int(np.searchsorted(self._starts, group, side="right")) - 1
        entry, unit = self._index.entries[tensor], group - int(self._starts[tensor])
        if self._granularity == "layer":
            return entry.name
        where = np.unravel_index(unit, entry.shape) if self._granularity == "parameter" else (unit,)
        return f"{entry.name}[{', '.join(str(int(i)) for i in where)}]"
