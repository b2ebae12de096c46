"""Which parameters belong together, and whole groups of them as the unit that is ranked and pruned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import MismatchError, UsageError
from causalprune.base.options import one_of
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.names import GRANULARITIES
from causalprune.pruning.ranking import Keys, highest

if TYPE_CHECKING:
    from causalprune.models.mask import Mask


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
        raise UsageError("`granularity`", expected=expected, found=repr(granularity))
    wanted = {"filter": ("Conv", True), "neuron": ("Linear", False)}.get(granularity)
    if wanted is not None and not any((len(entry.shape) > 2) == wanted[1] for entry in index):
        other = "neuron" if granularity == "filter" else "filter"
        raise MismatchError(
            f"granularity {granularity}",
            expected=f"a network with {wanted[0]} layers",
            found="none",
            remedy=f"use `granularity={other}`",
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


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a network, ranked.

    Attributes:
        ids: (P,) group of each parameter.
        removable: (P,) bool; what goes when its group goes: what the mask keeps, but for ``layer`` the best weight.
        size: (G,) number of removable members.
        score: (G,) mean of the primary scores of the kept members.
        order: The groups that have removable members, lowest mean scores first, equals by number.
        tensor: (G,) number of the tensor that each group lies in, the first of several.
        whole_tensors: Whether a group is a tensor.
    """

    ids: npt.NDArray[np.int64]
    removable: npt.NDArray[np.bool_]
    size: npt.NDArray[np.int64]
    score: npt.NDArray[np.floating]
    order: npt.NDArray[np.int64]
    tensor: npt.NDArray[np.int64]
    whole_tensors: bool

    def best_of(self, tensors: Sequence[int]) -> dict[int, int]:
        """The highest group of each tensor that has any, by tensor; none where a group is a tensor."""
        if self.whole_tensors:
            return {}
        found = {int(self.tensor[g]): int(g) for g in self.order}
        return {t: found[t] for t in tensors if t in found}

    def members(self, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(P,) the removable parameters of these groups."""
        is_chosen = np.zeros(len(self.size), dtype=bool)
        is_chosen[groups] = True
        return is_chosen[self.ids] & self.removable


def group(keys: Keys, mask: Mask, granularity: str, producers: Sequence[Sequence[int]] | None = None) -> Groups:
    """Rank the groups of ``granularity`` by the mean of each key over their kept members.

    Args:
        keys: Vectors (P,) to rank by.
        mask: What is kept.
        granularity: Anything but ``parameter``.
        producers: See :func:`causalprune.pruning.selection.select`.
    """
    kept = mask.numpy()
    removable = kept.copy()
    if producers is None:
        ids, _ = group_ids(mask.index, granularity)
        counts = groups_per_tensor(mask.index, granularity)
        tensor = np.repeat(np.arange(len(counts)), counts)
    else:
        ids, tensor = _channel_ids(mask.index, producers)
        removable &= tensor[ids] >= 0
    if granularity == "layer":
        for entry in mask.index:
            part = slice(entry.offset, entry.stop)
            if kept[part].any():
                removable[entry.offset + highest([key[part] for key in keys], kept[part])] = False
    count = len(tensor)
    members = np.bincount(ids[kept], minlength=count)
    means = [np.bincount(ids[kept], weights=key[kept], minlength=count) / np.maximum(members, 1) for key in keys]
    size = np.bincount(ids[removable], minlength=count)
    order = np.lexsort(means[::-1])
    return Groups(ids, removable, size, means[0], order[size[order] > 0], tensor, granularity == "layer")


def _channel_ids(
    index: ParameterIndex, producers: Sequence[Sequence[int]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The channel of each parameter, (P,), and the first tensor of each channel.

    What no channel holds gets the last number, whose tensor is −1.
    """
    first: dict[int, int] = {}
    tensor: list[int] = []
    for numbers in producers:
        first |= dict.fromkeys(numbers, len(tensor))
        tensor += [numbers[0]] * index.entries[numbers[0]].num_units
    ids = [
        first[number] + output_units(entry) if number in first else np.full(entry.size, len(tensor))
        for number, entry in enumerate(index)
    ]
    return np.concatenate(ids), np.array([*tensor, -1])


def choose_groups(groups: Groups, tensors: Sequence[int], count: int) -> tuple[npt.NDArray[np.bool_], list[int]]:
    """Choose the lowest groups of some tensors, with about ``count`` parameters, and empty none of the tensors.

    Args:
        groups: The ranked groups.
        tensors: Numbers of the tensors to choose from.
        count: Number of parameters; the choice comes as near as whole groups can, the fewer where two are as near.

    Returns:
        The parameters to prune, (P,) bool, and the numbers of the tensors that the guard kept from being emptied.
    """
    order = groups.order[np.isin(groups.tensor[groups.order], tensors)]
    best = groups.best_of(tensors)
    guarded: set[int] = set()
    while True:
        allowed = order[~np.isin(order, [best[t] for t in guarded])]
        totals = np.concatenate([[0], np.cumsum(groups.size[allowed])])
        chosen = allowed[: int(np.abs(totals - count).argmin())]
        # A guarded tensor makes room for the next groups, which may empty another tensor.
        emptied = {t for t, g in best.items() if g in chosen}
        if not emptied:
            break
        guarded |= emptied
    if groups.whole_tensors:
        guarded = set(groups.tensor[chosen].tolist())
    return groups.members(chosen), sorted(guarded)


def zero_groups(groups: Groups) -> tuple[npt.NDArray[np.bool_], int, list[int]]:
    """Choose the groups whose mean score is zero, but the best of a tensor that would be emptied.

    Returns:
        The parameters to prune, (P,) bool; how many there would be without the guard; the tensors that it kept from
        being emptied.
    """
    zero = groups.order[groups.score[groups.order] == 0]
    best = groups.best_of(range(int(groups.tensor.max()) + 1))
    guarded = {t for t, g in best.items() if g in zero}
    chosen = zero[~np.isin(zero, [best[t] for t in guarded])]
    if groups.whole_tensors:
        guarded = set(groups.tensor[chosen].tolist())
    target = int(groups.size[zero].sum()) + (len(guarded) if groups.whole_tensors else 0)
    return groups.members(chosen), target, sorted(guarded)
