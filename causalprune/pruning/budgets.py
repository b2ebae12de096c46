"""Budgets: how many weights each layer loses; which ones is up to the scores (:mod:`causalprune.pruning.selection`).

A scope is a function of :class:`Layers` that returns spans: layers that are ranked together, and how many of their
weights are pruned in all, those pruned before included. Scopes that give each layer a number of its own keep what the
masks before have pruned, and no layer is left without a weight; the other layers make up for both, in the same
proportions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import UsageError
from causalprune.base.units import listed, percent
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.groups import highest, lowest
from causalprune.pruning.lamp import lamp_scores
from causalprune.pruning.names import MASK_SCOPES

Counts = npt.NDArray[np.int64]

Span = tuple[list[int], int]
"""The numbers of some tensors, and how many of their weights are pruned afterwards."""

LAST_LAYER_KEEPS = 0.2
"""The least that ``uniform`` keeps of the last layer."""


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers among which a scope shares out what is to be pruned.

    Attributes:
        index: The prunable parameters.
        families: The numbers of the tensors that count as one layer: one tensor each, or all that produce the same
            channels.
        keep: (P,) bool, the mask so far.
        sparsity: The share of their weights that is to be pruned.
        target: The same as a number of weights, those pruned before included. It also makes up for what can't be pruned
            elsewhere, so it may be more than ``sparsity`` of them.
        theta: (P,) the weights, if the caller knows them.
        covered: (P,) bool, the parameters that have a score; None for all. The others stay.
    """

    index: ParameterIndex
    families: Sequence[Sequence[int]]
    keep: npt.NDArray[np.bool_]
    sparsity: float
    target: int
    theta: npt.NDArray[np.floating] | None = None
    covered: npt.NDArray[np.bool_] | None = None

    @cached_property
    def size(self) -> Counts:
        """(L,) the number of weights of each layer."""
        return self.summed(lambda entry: entry.size)

    @cached_property
    def kept(self) -> Counts:
        """(L,) how many of them the mask keeps so far."""
        return self.summed(lambda entry: int(np.count_nonzero(self.keep[entry.offset : entry.stop])))

    @cached_property
    def stay(self) -> Counts:
        """(L,) how many of them stay because they have no score."""
        if self.covered is None:
            return np.zeros_like(self.size)
        stay = self.keep & ~self.covered
        return self.summed(lambda entry: int(np.count_nonzero(stay[entry.offset : entry.stop])))

    def summed(self, count: Callable[[ParameterEntry], int]) -> Counts:
        """(L,) a number per tensor, summed over the tensors of each layer."""
        return np.array([sum(count(self.index.entries[n]) for n in family) for family in self.families], dtype=np.int64)

    def spans(self, kept: Counts) -> list[Span]:
        """Each layer by itself, with the number of weights that it is to keep."""
        return [(list(f), int(n)) for f, n in zip(self.families, self.size - kept, strict=True)]

    def emptied(self) -> list[Span]:
        """All that can be pruned of each layer, where the target leaves fewer weights than there are layers.

        The guard of the selection keeps one of each, and says so. If the target takes weights that have no score, it
        belongs to all layers together, so that the selection refuses it as what it is.
        """
        if int(self.size.sum()) - self.target < self.stay.sum():
            return one_ranking(self)
        return self.spans(self.stay)

    def proportional(self, weight: npt.NDArray[np.integer | np.floating], least: Counts | None = None) -> list[Span]:
        """Keep min(max(ε·weight, least), what is kept so far) of each layer, with the ε that meets the target.

        Whole numbers by largest remainders, among equal ones the first layers. If the layers keep fewer weights than
        the target leaves, they keep them all.

        Args:
            weight: (L,) positive.
            least: (L,) the fewest weights that each layer may keep; 1 where it says less.
        """
        left = int(self.size.sum()) - self.target
        low = np.minimum(np.maximum(np.maximum(1, self.stay), 0 if least is None else least), self.kept)
        if left >= self.kept.sum():
            return self.spans(self.kept)
        if left < low.sum():
            return self.emptied()
        # The sum over the layers is piecewise linear in ε, with a corner wherever a layer reaches a bound.
        corners = np.unique(np.concatenate([low / weight, self.kept / weight]))
        sums = np.clip(corners[:, None] * weight, low, self.kept).sum(axis=1)
        below = max(int(np.searchsorted(sums, left, side="right")) - 1, 0)
        slope = (sums[below + 1] - sums[below]) / (corners[below + 1] - corners[below])
        share = np.clip((corners[below] + (left - sums[below]) / slope) * weight, low, self.kept)
        kept = np.floor(share).astype(np.int64)
        kept[np.argsort(kept - share, kind="stable")[: left - int(kept.sum())]] += 1
        return self.spans(kept)


def one_ranking(layers: Layers) -> list[Span]:
    """One ranking over all layers: the scores alone decide what each of them loses."""
    return [(sorted(number for family in layers.families for number in family), layers.target)]


def same_fraction(layers: Layers) -> list[Span]:
    """The same fraction of each layer, whatever the others can't give."""
    return [(list(f), round(layers.sparsity * int(n))) for f, n in zip(layers.families, layers.size, strict=True)]


def uniform(layers: Layers) -> list[Span]:
    """The same density in each layer, but all of the first convolution and a fifth of the last Linear layer stay.

    The "uniform+" of Gale et al. (arXiv 1902.09574). First and last are those of the whole network, in the order of its
    modules; a network whose last weight isn't that of a Linear layer has no such last layer.

    Raises:
        UsageError: The target leaves fewer weights than that.
    """
    own = [(n, entry) for n, entry in enumerate(layers.index) if entry.kind != "named"]
    first = next((n for n, entry in own if len(entry.shape) > 2), None)
    last = own[-1][0] if own and own[-1][1].kind == "layer" and len(own[-1][1].shape) == 2 else None
    least = np.zeros_like(layers.size)
    for number, family in enumerate(layers.families):
        if first in family:
            least[number] = layers.size[number]
        elif last in family:
            least[number] = math.ceil(LAST_LAYER_KEEPS * int(layers.size[number]))
    size, stay = int(layers.size.sum()), int(layers.stay.sum())
    lowest_sum = int(np.minimum(np.maximum(np.maximum(least, 1), layers.stay), layers.kept).sum())
    # Where the scores alone are too few, the selection says so.
    if least.any() and stay <= size - layers.target < lowest_sum:
        most = math.floor((1 - lowest_sum / size) * 1e4) / 1e4
        raise UsageError(
            "`scope=uniform`",
            expected=f"at most {percent(most)}% to prune of the layers that share it, because the first convolution "
            f"stays dense and the last Linear layer keeps {percent(LAST_LAYER_KEEPS)}%"
            + (f", and {stay:,} weights aren't recorded" if stay else ""),
            found=f"{percent(layers.target / size, 2)}%",
            remedy="ask for a lower `sparsity`, or choose another scope",
        )
    return layers.proportional(layers.size, least)


def erk(layers: Layers) -> list[Span]:
    """Densities in proportion to (sum of a tensor's dimensions)/(product of them), and at most 1.

    The Erdős–Rényi kernel of Evci et al. (arXiv 1911.11134); for a Linear layer it is the Erdős–Rényi of Mocanu et al.
    """
    return layers.proportional(layers.summed(lambda entry: sum(entry.shape)))


def lamp(layers: Layers) -> list[Span]:
    """What one ranking over all layers by the LAMP scores of the kept weights leaves of each layer.

    Source: Lee et al. (arXiv 2010.07611), :func:`causalprune.pruning.lamp.lamp_scores`.

    Raises:
        UsageError: The weights aren't known.
    """
    if layers.theta is None:
        raise UsageError("`scope=lamp`", expected="`theta`, the weights whose magnitudes it ranks", found="none")
    scores = np.zeros(layers.index.total)
    candidates = np.zeros(layers.index.total, dtype=bool)
    for entry in (layers.index.entries[n] for family in layers.families for n in family):
        part = slice(entry.offset, entry.stop)
        kept = layers.keep[part]
        if kept.any():
            scores[part][kept] = lamp_scores(layers.theta[part][kept].astype(np.float64) ** 2)
            candidates[part] = kept if layers.covered is None else kept & layers.covered[part]
            if np.array_equal(candidates[part], kept):
                candidates[entry.offset + highest([scores[part]], kept)] = False
    count = layers.target - int((layers.size - layers.kept).sum())
    if count <= 0:
        return layers.spans(layers.kept)
    if count > np.count_nonzero(candidates):
        return layers.emptied()
    chosen, _ = lowest([scores], candidates, count)
    pruned = layers.summed(lambda entry: int(np.count_nonzero(chosen[entry.offset : entry.stop])))
    return layers.spans(layers.kept - pruned)


def share_out(
    index: ParameterIndex,
    keep: npt.NDArray[np.bool_],
    *,
    sparsity: float,
    scope: str,
    granularity: str,
    free: Sequence[int],
    producers: Sequence[Sequence[int]] | None = None,
    layer_sparsity: Mapping[str, float] | None = None,
    theta: npt.NDArray[np.floating] | None = None,
    covered: npt.NDArray[np.bool_] | None = None,
) -> tuple[list[Span], int]:
    """The budgets of a mask.

    Layers with a sparsity of their own get round(S·size) each, and the others share out the rest of the target. One
    that is sparser already stays so, and the others lose less.

    Args:
        index: The prunable parameters.
        keep: (P,) the mask so far.
        sparsity: S of all tensors in ``free``.
        scope: Name in :data:`causalprune.pruning.names.MASK_SCOPES`.
        granularity: What is pruned as a whole; whole layers have no budgets.
        free: Numbers of the tensors that may be pruned and count.
        producers: Which of them are pruned together, where groups are pruned; other tensors stay as they are.
        layer_sparsity: S of single tensors, by name.
        theta: (P,) the weights; read by the scope ``lamp``.
        covered: (P,) bool, the parameters that have a score; None for all.

    Returns:
        The spans, and the number of pruned weights that they aim at in all of ``free``. The spans miss it where tensors
        can't be pruned enough.

    Raises:
        UsageError: An unknown scope; sparsities of single layers that can't be met together with the whole; budgets for
            whole layers; whatever the scope refuses.
    """
    if granularity == "layer" and (scope != "global" or layer_sparsity):
        raise UsageError(
            "`granularity=layer`",
            expected="`scope=global`, which ranks the layers",
            found="`layer_sparsity`" if scope == "global" else f"`scope={scope}`",
        )
    entries = index.entries
    families = [[n] for n in free] if producers is None else [list(family) for family in producers]
    own = _own_sparsities(index, free, families, layer_sparsity or {})
    asked = [s * sum(entries[n].size for n in families[at]) for at, s in own.items()]
    rest = [family for at, family in enumerate(families) if at not in own]
    spans = [(families[at], round(count)) for at, count in zip(own, asked, strict=True)]
    size = sum(entries[n].size for family in rest for n in family)
    # With the same fraction of each layer, none makes up for others that can't be pruned, or are pruned already.
    alone = scope == "layer"
    counted = [n for family in families for n in family] if alone else free
    whole = sum(entries[n].size for n in counted)
    if own:
        _require_met(sparsity * whole, asked, size, whole)
    target = round(sparsity * sum(entries[n].size for n in free))
    if rest:
        pruned = {n: int(np.count_nonzero(~keep[entries[n].offset : entries[n].stop])) for n in free}
        # Of the others, each as far as it is pruned or will be.
        elsewhere = sum(max(count, sum(pruned[n] for n in family)) for family, count in spans)
        elsewhere += sum(pruned[n] for n in set(free).difference(*families))
        left = sparsity * whole - sum(count for _, count in spans)
        share = min(max(left / size, 0), 1) if own else sparsity
        wanted = min(max(target - elsewhere, 0), size)
        spans += MASK_SCOPES.load(scope)(Layers(index, rest, keep, share, wanted, theta, covered))
    return sorted(spans), sum(count for _, count in spans) if alone or (own and not rest) else target


def _own_sparsities(
    index: ParameterIndex, free: Sequence[int], families: Sequence[Sequence[int]], given: Mapping[str, float]
) -> dict[int, float]:
    """The families that have a sparsity of their own, by number."""
    names = [entry.name for entry in index]
    own: dict[int, float] = {}
    for at, family in enumerate(families):
        values = {given.get(names[n]) for n in family}
        if len(values) > 1:
            raise UsageError(
                "`layer_sparsity`",
                expected=f"one for all of {listed([names[n] for n in family])}, which are pruned together",
                found=", ".join("none" if value is None else f"{value:g}" for value in values),
            )
        (value,) = values
        if value is not None:
            own[at] = value
    whole = sorted(set(free).difference(*families))
    for name in (names[n] for n in whole if given.get(names[n])):
        raise UsageError("`layer_sparsity`", expected="layers with groups that can be pruned", found=name)
    return own


def _require_met(wanted: float, asked: Sequence[float], size: int, whole: int) -> None:
    """Check that ``size`` further weights can make up for what each of some layers is asked for, but for rounding."""
    low, slack = sum(asked), 1 + len(asked) / 2
    if not -slack <= wanted - low <= size + slack:
        reach = f" to {(low + size) / whole:.4g}, which the other layers can make up for"
        raise UsageError(
            "`layer_sparsity`",
            expected=f"a `sparsity` of {low / whole:.4g}{reach if size else ', because each has its own'}",
            found=f"{wanted / whole:.4g}",
        )
