"""Rankings: the lowest and the highest of many parameters, and groups of them that are pruned as a whole.

The order of parameters is total: by the keys, the most significant first, and among equals by position, the lower
first. Groups are filters, neurons, channels or layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.column_groups import group_ids, groups_per_tensor, output_units

if TYPE_CHECKING:
    from causalprune.models.mask import Mask

Keys = Sequence[npt.NDArray[np.floating]]
Rank = tuple[float, ...]
"""Rank of a parameter in the order: its keys, then its position."""


def rank(keys: Keys, position: int) -> Rank:
    """The rank of the parameter at ``position``; ranks compare in the order."""
    return (*(float(key[position]) for key in keys), position)


def lowest(keys: Keys, candidates: npt.NDArray[np.bool_], count: int) -> tuple[npt.NDArray[np.bool_], Rank]:
    """Choose the ``count`` lowest of the candidates.

    Args:
        keys: Vectors (P,) to order by; finite where ``candidates`` is True.
        candidates: (P,) bool.
        count: From 1 to the number of candidates.

    Returns:
        The chosen candidates, (P,) bool, and the rank of the highest of them.
    """
    chosen = np.zeros(len(candidates), dtype=bool)
    pool, missing = candidates, count
    for key in keys:
        # Everything below the threshold is chosen; the next key decides among those equal to it.
        threshold = np.partition(key[pool], missing - 1)[missing - 1]
        below = pool & (key < threshold)
        chosen |= below
        missing -= int(np.count_nonzero(below))
        pool = pool & (key == threshold)
    first = np.flatnonzero(pool)[:missing]
    chosen[first] = True
    return chosen, rank(keys, int(first[-1]))


def highest(keys: Keys, candidates: npt.NDArray[np.bool_]) -> int:
    """Position of the highest candidate; there must be at least one."""
    pool = np.flatnonzero(candidates)
    for key in keys:
        values = key[pool]
        pool = pool[values == values.max()]
    return int(pool[-1])


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a network, ranked.

    Attributes:
        ids: (P,) group of each parameter.
        removable: (P,) bool; the parameters that are pruned with their group: all that the mask keeps, except the best
            weight of each tensor where a group is a tensor.
        size: (G,) number of removable members.
        score: (G,) mean of the primary scores of the kept members.
        order: The groups that have removable members, lowest mean score first, ties by number.
        tensor: (G,) number of the tensor that holds each group, the first of several.
        whole_tensors: Whether a group is a tensor.
    """

    ids: npt.NDArray[np.int64]
    removable: npt.NDArray[np.bool_]
    size: npt.NDArray[np.int64]
    score: npt.NDArray[np.floating]
    order: npt.NDArray[np.int64]
    tensor: npt.NDArray[np.int64]
    whole_tensors: bool

    def best_of_tensors(self) -> dict[int, int]:
        """The highest group of each tensor that has any; empty where a group is a tensor."""
        return {} if self.whole_tensors else {int(self.tensor[g]): int(g) for g in self.order}

    def members(self, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(P,) the removable parameters of these groups."""
        return np.isin(np.arange(len(self.size)), groups)[self.ids] & self.removable


def group(keys: Keys, mask: Mask, granularity: str, producers: Sequence[Sequence[int]] | None = None) -> Groups:
    """Rank the groups of ``granularity`` by the mean of each key over their kept members.

    Args:
        keys: Vectors (P,) to rank by, the most significant first.
        mask: The mask so far.
        granularity: Any granularity but ``parameter``.
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

    Parameters outside all channels get the last number, whose tensor is −1.
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
    """Choose the lowest groups of some tensors, with about ``count`` parameters, without emptying a tensor.

    Args:
        groups: The ranked groups.
        tensors: Numbers of the tensors to choose from.
        count: Number of parameters to choose. The result is as close as whole groups can come; of two equally close
            ones, the smaller.

    Returns:
        The parameters to prune, (P,) bool, and the numbers of the tensors that the guard kept from being emptied.
    """
    order = groups.order[np.isin(groups.tensor[groups.order], tensors)]
    best = {t: g for t, g in groups.best_of_tensors().items() if t in tensors}
    guarded: set[int] = set()
    while True:
        allowed = order[~np.isin(order, [best[t] for t in guarded])]
        totals = np.concatenate([[0], np.cumsum(groups.size[allowed])])
        chosen = allowed[: int(np.abs(totals - count).argmin())]
        # Guarding a tensor lets the next groups in, which may empty another tensor.
        emptied = {t for t, g in best.items() if g in chosen}
        if not emptied:
            break
        guarded |= emptied
    if groups.whole_tensors:
        guarded = set(groups.tensor[chosen].tolist())
    return groups.members(chosen), sorted(guarded)


def zero_groups(groups: Groups, tensors: Sequence[int]) -> tuple[npt.NDArray[np.bool_], int, list[int]]:
    """Choose the groups whose mean score is zero, except the best group of a tensor that would be emptied.

    Args:
        groups: The ranked groups.
        tensors: Numbers of the tensors to choose from.

    Returns:
        The parameters to prune, (P,) bool; their number without the guard; the numbers of the tensors that the guard
        kept from being emptied.
    """
    order = groups.order[np.isin(groups.tensor[groups.order], tensors)]
    zero = order[groups.score[order] == 0]
    best = groups.best_of_tensors()
    guarded = {t for t, g in best.items() if g in zero}
    chosen = zero[~np.isin(zero, [best[t] for t in guarded])]
    if groups.whole_tensors:
        guarded = set(groups.tensor[chosen].tolist())
    target = int(groups.size[zero].sum()) + (len(guarded) if groups.whole_tensors else 0)
    return groups.members(chosen), target, sorted(guarded)
