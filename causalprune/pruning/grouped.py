"""Whole groups of parameters as the unit that is ranked and pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.parameters import ParameterIndex
from causalprune.pruning.groups import group_ids, groups_per_tensor, output_units
from causalprune.pruning.mask import Mask
from causalprune.pruning.ranking import Keys, highest


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


def group(keys: Keys, mask: Mask, granularity: str, writers: Sequence[Sequence[int]] | None = None) -> Groups:
    """Rank the groups of ``granularity`` by the mean of each key over their kept members.

    Args:
        keys: Vectors (P,) to rank by.
        mask: What is kept.
        granularity: Anything but ``parameter``.
        writers: See :func:`causalprune.pruning.select.select`.
    """
    kept = mask.numpy()
    removable = kept.copy()
    if writers is None:
        ids, _ = group_ids(mask.index, granularity)
        counts = groups_per_tensor(mask.index, granularity)
        tensor = np.repeat(np.arange(len(counts)), counts)
    else:
        ids, tensor = _channel_ids(mask.index, writers)
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
    index: ParameterIndex, writers: Sequence[Sequence[int]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The channel of each parameter, (P,), and the first tensor of each channel.

    What no channel holds gets the last number, whose tensor is −1.
    """
    first: dict[int, int] = {}
    tensor: list[int] = []
    for numbers in writers:
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
        The parameters to prune, (P,) bool, and the numbers of the tensors that were rescued.
    """
    order = groups.order[np.isin(groups.tensor[groups.order], tensors)]
    best = groups.best_of(tensors)
    rescued: set[int] = set()
    while True:
        allowed = order[~np.isin(order, [best[t] for t in rescued])]
        totals = np.concatenate([[0], np.cumsum(groups.size[allowed])])
        chosen = allowed[: int(np.abs(totals - count).argmin())]
        # A rescue makes room for the next groups, which may empty another tensor.
        emptied = {t for t, g in best.items() if g in chosen}
        if not emptied:
            break
        rescued |= emptied
    if groups.whole_tensors:
        rescued = set(groups.tensor[chosen].tolist())
    return groups.members(chosen), sorted(rescued)


def zero_groups(groups: Groups) -> tuple[npt.NDArray[np.bool_], int, list[int]]:
    """Choose the groups whose mean score is zero, but the best of a tensor that would be emptied.

    Returns:
        The parameters to prune, (P,) bool; how many there would be without a rescue; the tensors that were rescued.
    """
    zero = groups.order[groups.score[groups.order] == 0]
    best = groups.best_of(range(int(groups.tensor.max()) + 1))
    rescued = {t for t, g in best.items() if g in zero}
    chosen = zero[~np.isin(zero, [best[t] for t in rescued])]
    if groups.whole_tensors:
        rescued = set(groups.tensor[chosen].tolist())
    target = int(groups.size[zero].sum()) + (len(rescued) if groups.whole_tensors else 0)
    return groups.members(chosen), target, sorted(rescued)
