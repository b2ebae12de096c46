"""Groups of parameters: which filter, neuron or layer each of them belongs to; loads no PyTorch."""

from __future__ import annotations

import math
from itertools import compress

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import MismatchError
from causalprune.base.options import one_of, require
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.trajectory.names import GRANULARITIES


def group_ids(
    index: ParameterIndex, granularity: str, active: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the groups of parameters, in the order of the index.

    ``parameter``: each parameter by itself. ``filter`` or ``neuron`` (synonyms): the weights of one output unit, which
    is a filter of a Conv layer, a neuron of a Linear layer, or a row of any other matrix. ``layer``: one whole tensor.

    Args:
        index: The prunable parameters.
        granularity: One of these four.
        active: (P,) bool; number only these parameters, and only the groups that contain one of them.

    Returns:
        The group of each (active) parameter, (P,) int64 with values 0 … G−1, and the labels of the G groups, such as
        ``conv1.weight[3]``.

    Raises:
        UsageError: An unknown granularity.
        MismatchError: A granularity that the network lacks.
    """
    starts = np.cumsum([0, *groups_per_tensor(index, granularity)]).tolist()
    ids = np.concatenate([_within(entry, granularity) + start for entry, start in zip(index, starts, strict=False)])
    shapes = [(entry.name, _group_shape(entry, granularity)) for entry in index]
    labels = [f"{name}{list(where) if where else ''}" for name, shape in shapes for where in np.ndindex(shape)]
    if active is None:
        return ids, labels
    ids = ids[active]
    is_present = np.bincount(ids, minlength=len(labels)) > 0
    return (np.cumsum(is_present) - 1)[ids], list(compress(labels, is_present))


def groups_per_tensor(index: ParameterIndex, granularity: str) -> list[int]:
    """Count the groups of each prunable tensor.

    Raises:
        UsageError: An unknown granularity.
        MismatchError: Filters of a network without Conv layers, or neurons of one without Linear layers.
    """
    require("`granularity`", granularity, one_of(GRANULARITIES))
    wanted = {"filter": ("Conv", True), "neuron": ("Linear", False)}.get(granularity)
    if wanted is not None and not any((len(entry.shape) > 2) == wanted[1] for entry in index if entry.kind != "named"):
        other = "neuron" if granularity == "filter" else "filter"
        raise MismatchError(
            f"granularity {granularity}",
            expected=f"a network with {wanted[0]} layers",
            found="none",
            remedy=f"use `granularity={other}`",
        )
    return [math.prod(_group_shape(entry, granularity)) for entry in index]


def _group_shape(entry: ParameterEntry, granularity: str) -> tuple[int, ...]:
    """The shape of a tensor's groups: that of the tensor, the number of its units, or () for one group."""
    if granularity == "parameter":
        return entry.shape
    return () if granularity == "layer" else (entry.num_units,)


def output_units(entry: ParameterEntry) -> npt.NDArray[np.int64]:
    """The filter or neuron of each element of a tensor, in flat order."""
    inner = math.prod(entry.shape[entry.filter_axis + 1 :])
    return np.arange(entry.size) // inner % entry.num_units


def _within(entry: ParameterEntry, granularity: str) -> npt.NDArray[np.int64]:
    """The group of each element of a tensor, numbered within the tensor, in flat order."""
    if granularity == "parameter":
        return np.arange(entry.size)
    if granularity == "layer":
        return np.zeros(entry.size, dtype=np.int64)
    return output_units(entry)
