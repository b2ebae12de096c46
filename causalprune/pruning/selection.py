"""From scores to a mask: how many parameters to prune in an iteration, and which, without emptying a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.base.options import at_least, fraction, one_of, require
from causalprune.base.units import listed, percent
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.budgets import share_out
from causalprune.pruning.criterion import Scores
from causalprune.pruning.groups import Keys, choose_groups, group, highest, lowest, rank, zero_groups
from causalprune.pruning.names import MASK_GRANULARITIES, MASK_SCOPES, SPARSITY_SCHEDULES

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Selection:
    """A new mask, and how it was chosen.

    Attributes:
        mask: The mask; everything that was pruned before stays pruned.
        target: Number of parameters to prune in total, including those pruned before.
        newly_pruned: Number of parameters that this selection pruned.
        guarded: Names of the tensors that the layer-collapse guard kept from being emptied; they keep their best weight
            (or group).
        candidates: Number of parameters of the tensors that aren't frozen, pruned ones included.
        num_pruned: How many of these are pruned now.
    """

    mask: Mask
    target: int
    newly_pruned: int
    guarded: tuple[str, ...]
    candidates: int
    num_pruned: int

    @property
    def sparsity(self) -> float:
        """Fraction of the candidates that are pruned."""
        return self.num_pruned / self.candidates


def select(
    scores: Scores,
    mask: Mask,
    *,
    sparsity: float,
    scope: str = "global",
    granularity: str = "parameter",
    producers: Sequence[Sequence[int]] | None = None,
    frozen: Collection[str] = (),
    layer_sparsity: Mapping[str, float] | None = None,
    theta: npt.NDArray[np.floating] | None = None,
    covered: Bools | None = None,
) -> Selection:
    """Prune the lowest scores until a fraction S of all prunable parameters is pruned.

    The target is round(S·P) parameters, with halves rounded to even as in ``torch.nn.utils.prune``. Parameters that
    were pruned before count toward it and stay pruned; their scores are ignored. Among equal scores, the lower index
    is pruned first. Frozen tensors are left as they are and don't count: P is the number of all other parameters.

    No layer is emptied: each keeps its best weight, and the next-lowest weight of another layer is pruned instead, so
    the target is met as long as layers have more than one weight. With ``scope="layer"``, round(S·size) weights of each
    layer are pruned, and other layers don't compensate for a kept weight. The other scopes give each layer a number of
    its own (:mod:`causalprune.pruning.budgets`), and meet the target together.

    Groups are ranked by the mean score of their kept members and pruned whole: the lowest groups, as many as bring the
    count closest to the target (the fewer of two equally close numbers). A layer keeps its best filter; with
    ``granularity="layer"``, a pruned layer keeps its best weight. The group of a channel is the output units of all
    layers that produce it. Layers that produce the same channels count as one. Layers that aren't among the
    ``producers`` aren't pruned; except under ``scope="layer"`` the other layers compensate for them.

    Args:
        scores: Finite wherever the mask keeps.
        mask: The mask so far.
        sparsity: S in [0, 1).
        scope: ``global``: one ranking over all layers; ``layer``: one per layer, to the same fraction; or another name
            in :data:`causalprune.pruning.names.MASK_SCOPES`.
        granularity: ``parameter``, ``filter`` (or ``neuron``), ``channel`` or ``layer``.
        producers: For filters, neurons and channels: the numbers of the tensors whose units are pruned together, for
            all units that may be pruned. By default, the units of each tensor are pruned by themselves; ``channel``
            needs the producers of a :class:`causalprune.pruning.channels.ChannelGraph`. Units that are pruned together
            with those of a frozen tensor aren't pruned.
        frozen: Names of tensors that aren't pruned.
        layer_sparsity: S of single tensors, by name; the others make up for the difference.
        theta: (P,) the weights; read by ``scope="lamp"`` only.
        covered: (P,) bool, the parameters that have a score; the others stay, and count. None for all; without it only
            for ``granularity="parameter"``.

    Raises:
        UsageError: A value outside its range, or sparsities of layers that can't be met together with the whole, or by
            the parameters that have a score.
        MismatchError: The number of scores isn't that of the prunable parameters.
        DataError: Scores that aren't finite; everything is pruned already, or frozen.
    """
    require("`sparsity`", sparsity, fraction)
    require("`scope`", scope, MASK_SCOPES)
    require("`granularity`", granularity, one_of(MASK_GRANULARITIES))
    for value in (layer_sparsity or {}).values():
        require("`layer_sparsity`", value, fraction)
    free, producers = free_tensors(mask.index, producers, frozen)
    kept = checked_scores(scores, mask, free, covered)
    open_ = kept if covered is None else kept & covered
    entries = mask.index.entries
    spans, target = share_out(
        mask.index,
        mask.numpy(),
        sparsity=sparsity,
        scope=scope,
        granularity=granularity,
        free=free,
        producers=producers,
        layer_sparsity=layer_sparsity,
        theta=theta,
        covered=covered,
    )
    if covered is not None:
        _require_enough_scores(mask.index, kept, open_, [(free, target), *spans])

    pruned = np.zeros(mask.index.total, dtype=bool)
    guarded: list[str] = []
    groups = None if granularity == "parameter" else group(scores.keys, mask, granularity, producers)
    for span, wanted in spans:
        count = wanted - sum(_num_pruned(kept, entries[n]) for n in span)
        if count <= 0:
            continue
        if groups is None:
            start, stop = entries[span[0]].offset, entries[span[-1]].stop
            limits = [(entries[n].offset - start, entries[n].stop - start) for n in span]
            keys = [key[start:stop] for key in scores.keys]
            chosen, emptied = _choose_parameters(keys, kept[start:stop], open_[start:stop], limits, count)
            pruned[start:stop] = chosen
            guarded += [entries[span[i]].name for i in emptied]
        else:
            chosen, emptied = choose_groups(groups, span, count)
            pruned |= chosen
            guarded += [entries[n].name for n in emptied]
    return selection_of(mask, free, pruned, target, guarded)


def select_zero(
    scores: Scores,
    mask: Mask,
    *,
    granularity: str = "parameter",
    producers: Sequence[Sequence[int]] | None = None,
    frozen: Collection[str] = (),
    covered: Bools | None = None,
) -> Selection:
    """Prune every parameter with γ_k = 0 in all lags: the rule of the paper.

    A layer in which every γ is zero keeps its best weight (or group), the one with the largest KKT score.

    Args:
        scores: Scores of the criterion ``gamma``, whose primary score is zero if and only if γ_k is.
        mask: The mask so far.
        granularity: Groups larger than a parameter are pruned when the γ of all their kept members is zero.
        producers: See :func:`select`.
        frozen: Names of tensors that aren't pruned.
        covered: See :func:`select`.

    Raises:
        UsageError: An unknown granularity.
        MismatchError: The number of scores isn't that of the prunable parameters.
        DataError: Scores that aren't finite; everything is pruned already, or frozen.
    """
    free, producers = free_tensors(mask.index, producers, frozen)
    kept = checked_scores(scores, mask, free, covered)
    before = sum(_num_pruned(mask.numpy(), mask.index.entries[n]) for n in free)
    if granularity == "parameter":
        pruned = (kept if covered is None else kept & covered) & (scores.primary == 0)
        target = before + int(np.count_nonzero(pruned))
        emptied = []
        for number, entry in enumerate(mask.index):
            part = slice(entry.offset, entry.stop)
            if kept[part].any() and not (kept[part] & ~pruned[part]).any():
                emptied.append(number)
                pruned[entry.offset + highest([key[part] for key in scores.keys], kept[part])] = False
    else:
        groups = group(scores.keys, mask, granularity, producers)
        pruned, target, emptied = zero_groups(groups, free)
        target += before
    return selection_of(mask, free, pruned, target, [mask.index.entries[i].name for i in emptied])


def _require_enough_scores(
    index: ParameterIndex, kept: Bools, open_: Bools, wanted: Sequence[tuple[Sequence[int], int]]
) -> None:
    """Check that as many weights have a score as are to be pruned of some tensors.

    Raises:
        UsageError: Fewer.
    """
    for numbers, count in wanted:
        entries = [index.entries[number] for number in numbers]
        size = sum(entry.size for entry in entries)
        scored = sum(int(np.count_nonzero(open_[entry.offset : entry.stop])) for entry in entries)
        most = scored + sum(_num_pruned(kept, entry) for entry in entries)
        if count > most:
            where = "" if len(entries) > 1 else f" in {listed([entry.name for entry in entries])}"
            raise UsageError(
                "`sparsity`",
                expected=f"at most {percent(math.floor(most / size * 1e4) / 1e4, 2)}%{where}, because only {scored:,} "
                f"of the {size:,} weights are recorded and can be told apart",
                found=f"{percent(count / size, 2)}%",
                remedy="record a larger share with `columns`, or choose a criterion that reads no recording, such as "
                "magnitude",
            )


def _choose_parameters(
    keys: Keys, kept: Bools, open_: Bools, limits: list[tuple[int, int]], count: int
) -> tuple[Bools, list[int]]:
    """Choose ``count`` of the open parameters within ``limits``, but never the best one of a layer that would be empty.

    Setting the best weight of each layer aside is equivalent to guarding layers one by one as they run empty: the best
    weight is the last of its layer, so it would be chosen only if its layer were emptied.

    Returns:
        The chosen parameters, and the numbers of the layers whose best weight would have been chosen.
    """
    best: dict[int, int] = {}
    candidates = np.zeros_like(kept)
    for number, (start, stop) in enumerate(limits):
        candidates[start:stop] = open_[start:stop]
        # Where a kept weight isn't open, it stays.
        if open_[start:stop].any() and np.array_equal(open_[start:stop], kept[start:stop]):
            best[number] = start + highest([key[start:stop] for key in keys], kept[start:stop])
            candidates[best[number]] = False
    available = int(np.count_nonzero(candidates))
    if available == 0:
        return candidates, list(best)
    chosen, last = lowest(keys, candidates, min(count, available))
    return chosen, [n for n, position in best.items() if count > available or rank(keys, position) < last]


def free_tensors(
    index: ParameterIndex, producers: Sequence[Sequence[int]] | None, frozen: Collection[str]
) -> tuple[list[int], list[Sequence[int]] | None]:
    """The numbers of the tensors that aren't frozen, and the producers without those that have a frozen one."""
    free = [number for number, entry in enumerate(index) if entry.name not in frozen]
    chosen = None if producers is None else [family for family in producers if all(n in free for n in family)]
    if not free or (producers and not chosen):
        raise DataError(
            "mask",
            expected="weights to prune that aren't frozen",
            found="none" if free else "every prunable weight frozen",
            remedy="train them first, pass `prune_frozen`, or name fewer layers to `keep`",
        )
    return free, chosen


def _num_pruned(kept: Bools, entry: ParameterEntry) -> int:
    return int(np.count_nonzero(~kept[entry.offset : entry.stop]))


def checked_scores(scores: Scores, mask: Mask, free: Sequence[int], covered: Bools | None = None) -> Bools:
    """Check scores and mask; return the kept parameters of the tensors that aren't frozen, with or without a score."""
    if scores.primary.shape != (mask.index.total,):
        raise MismatchError(
            "scores", expected=f"{mask.index.total}, one per prunable parameter", found=str(scores.primary.size)
        )
    kept = np.zeros(mask.index.total, dtype=bool)
    for entry in (mask.index.entries[number] for number in free):
        kept[entry.offset : entry.stop] = mask.numpy()[entry.offset : entry.stop]
    if not kept.any():
        raise DataError(
            "mask", expected="parameters left to prune", found="every one pruned already", remedy="start from another"
        )
    for key in scores.keys:
        bad = (kept if covered is None else kept & covered) & ~np.isfinite(key)
        if bad.any():
            position = int(bad.argmax())
            name, where = mask.index.locate(position)
            raise DataError(f"score of {name}{list(where)}", expected="a finite number", found=str(key[position]))
    return kept


def selection_of(mask: Mask, free: Sequence[int], pruned: Bools, target: int, guarded: list[str]) -> Selection:
    """The mask without what is pruned now, and what is known of it; see :class:`Selection`."""
    newly = int(np.count_nonzero(pruned))
    new = Mask.from_numpy(mask.index, mask.numpy() & ~pruned) if newly else mask
    entries = [mask.index.entries[number] for number in free]
    now = sum(_num_pruned(new.numpy(), entry) for entry in entries)
    return Selection(new, target, newly, tuple(guarded), sum(entry.size for entry in entries), now)


def target_sparsity(schedule: str, iteration: int, iterations: int, sparsity: float) -> float:
    """The sparsity that iteration i of N prunes to, on the way to S.

    Args:
        schedule: Name in :data:`causalprune.pruning.names.SPARSITY_SCHEDULES`.
        iteration: i, from 1 to N.
        iterations: N.
        sparsity: S in [0, 1), reached exactly at i = N.

    Raises:
        UsageError: An unknown schedule, or a value outside its range.
    """
    require("`sparsity`", sparsity, fraction)
    require("`iterations`", iterations, at_least(1))
    require("`iteration`", iteration, lambda i: None if 1 <= i <= iterations else f"a number from 1 to {iterations}")
    rise: Callable[[float, float], float] = SPARSITY_SCHEDULES.load(schedule)
    # The last step isn't computed, so that rounding can't miss the target.
    return sparsity if iteration == iterations else rise(iteration / iterations, sparsity)


def cubic(progress: float, target: float) -> float:
    """S·(1 − (1 − i/N)³), by Zhu and Gupta, arXiv 1710.01878."""
    return target * (1 - (1 - progress) ** 3)


def geometric(progress: float, target: float) -> float:
    """1 − (1 − S)^(i/N), which removes the same fraction of the remaining weights in each iteration."""
    return float(1 - (1 - target) ** progress)


def one_shot(progress: float, target: float) -> float:
    """S from the first iteration on."""
    del progress
    return target
