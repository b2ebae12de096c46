"""Choose the weights to prune: from weights, a recording, a fit and layers to a mask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalprune.base.errors import DataError, UsageError
from causalprune.base.units import listed, percent
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.wrappers import named_parameters
from causalprune.pruning.criteria import read_inputs
from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64
from causalprune.pruning.dead_ends.finder import DeadEnds
from causalprune.pruning.dead_ends.selection import without_dead_ends
from causalprune.pruning.layer_statistics import LayerStatistics
from causalprune.pruning.network.named_layers import NamedLayers
from causalprune.pruning.network.pattern import Pattern, select_pattern
from causalprune.pruning.selection import Selection, select, select_zero
from causalprune.trajectory import Fit, RecordingReader

OFF_TARGET = 0.01
"""How far the sparsity of whole groups may be from the target without a warning."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Which weights are pruned, and what those that are kept become.

    Attributes:
        selection: The new mask, and how it was chosen.
        theta: (P,) new weights where the criterion sets them; None where they stay as they are.
        frozen: Tensors that weren't trained, or not recorded, and are left alone.
        unrecorded: Those of them that weren't recorded.
        unmeasured: Tensors that are left alone because the criterion measures layers, and not these.
        kept_dense: Tensors that are kept because they are named.
        unmoved: Kept weights that were trained, but that no recorded step moved; None where nobody knows.
        reconnected: How many kept weights took the place of dead ends; None where these weren't looked for.
        of_scores: What the criterion says of how they were scored, and what kept dead ends from being found.
        unscored: Kept weights of the other tensors that are left alone because they have no column in the recording.
    """

    selection: Selection
    theta: npt.NDArray[np.floating] | None
    frozen: Sequence[str]
    unrecorded: Sequence[str]
    unmeasured: Sequence[str]
    kept_dense: Sequence[str]
    unmoved: int | None
    reconnected: int | None = None
    of_scores: Sequence[str] = ()
    unscored: int = 0

    def weights(self) -> dict[str, torch.Tensor]:
        """New weights by name; empty where they stay as they are."""
        if self.theta is None:
            return {}
        found = self.selection.mask.index.split(torch.from_numpy(self.theta))
        return {name: values for name, values in found.items() if name not in {*self.frozen, *self.unmeasured}}

    def apply_(self, model: nn.Module) -> None:
        """Prune a network in place."""
        parameters = named_parameters(model)
        for name, values in self.weights().items():
            parameters[name].detach().copy_(values)
        self.selection.mask.apply_(model)

    def remarks(self, granularity: str, target: float | None, inseparable: Sequence[str] = ()) -> list[str]:
        """What is left alone, and where the mask differs from what was asked for.

        Args:
            granularity: What was pruned as a whole.
            target: The sparsity that was asked for; None for the rule γ = 0.
            inseparable: Tensors that are left alone because their channels can't be removed.
        """
        selection, said = self.selection, [*self.of_scores]
        untrained = [name for name in self.frozen if name not in self.unrecorded]
        hint = " (`prune_frozen` includes them)"
        other = " (no product uses them as a whole, on whose inputs they could be measured; other criteria prune them)"
        for what, names, more in (
            ("frozen or never trained", untrained, hint),
            ("not recorded", self.unrecorded, ""),
            ("not measured", self.unmeasured, other),
        ):
            if names:
                count = sum(selection.mask.index[name].size for name in names)
                said.append(f"{what}, left alone: {listed(names)}, {count:,} weights{more}")
        if self.unscored:
            share = percent(self.unscored / selection.candidates, 2)
            said.append(
                f"not recorded, left alone: {self.unscored:,} of {selection.candidates:,} weights ({share}%), because "
                "the recording has a share of the columns"
            )
        if inseparable:
            said.append(f"left alone, because their channels can't be removed one by one: {listed(inseparable)}")
        found = selection.sparsity
        if selection.newly_pruned == 0 and selection.num_pruned > selection.target:
            said.append(f"{percent(found, 2)}% of the weights are pruned already, more than asked for: nothing pruned")
        elif granularity != "parameter" and target is not None and abs(found - target) > OFF_TARGET:
            said.append(
                f"{percent(found, 2)}% of the weights are pruned, where {percent(target, 2)}% were asked for: "
                f"whole {granularity}s come no nearer"
            )
        unit = "weight" if granularity in ("parameter", "layer") else granularity
        said += [f"layer {name} would have been emptied and keeps its best {unit}" for name in selection.guarded]
        return said


def choose_weights(
    criterion: Criterion,
    theta: npt.NDArray[np.float32],
    mask: Mask,
    *,
    sparsity: float | None,
    pattern: Pattern | None = None,
    named: NamedLayers,
    progress: float = 1.0,
    frozen: Sequence[str] = (),
    unrecorded: Sequence[str] = (),
    reader: RecordingReader | None = None,
    fit: Fit | None = None,
    layers: Mapping[str, LayerStatistics] | None = None,
    scope: str = "global",
    granularity: str = "parameter",
    producers: Sequence[Sequence[int]] | None = None,
    dead_ends: DeadEnds | None = None,
    ridge: float = CriterionInputs.ridge,
    first_order: bool = False,
    exponent: float | None = None,
    device: str = "cpu",
    seed: int = 0,
    max_bytes: int = 2**31,
) -> Choice:
    """Score the weights, and choose those to prune.

    Args:
        criterion: How they are scored.
        theta: (P,) the weights.
        mask: The mask so far; what it prunes stays pruned.
        sparsity: See :func:`causalprune.pruning.selection.select`; None prunes every weight with γ = 0, or by the
            pattern.
        pattern: How many of each group of weights stay, if that is what decides.
        named: Layers to keep, and sparsities of single layers at the end.
        progress: The part of the final sparsity that ``sparsity`` is.
        frozen: Tensors that are left alone.
        unrecorded: Those of them that weren't recorded.
        reader: A recording of the weights, if the criterion reads one.
        fit: A fit to it, if the criterion reads one.
        layers: Second moments of the layers, if the criterion reads them.
        scope: What is ranked together.
        granularity: What is pruned as a whole.
        producers: See :func:`causalprune.pruning.selection.select`.
        dead_ends: Finds weights that reach no output, which are pruned first; None to prune them as they are scored.
            For a sparsity of single weights.
        ridge: See :class:`causalprune.pruning.criterion.CriterionInputs`.
        first_order: See there.
        exponent: See there; None for the criterion's own.
        device: See there.
        seed: See there.
        max_bytes: Largest matrix of gradients to hold in memory.

    Raises:
        CausalpruneError: See :func:`causalprune.pruning.selection.select` and :meth:`Criterion.score`.
    """
    measured = "layers" in criterion.needs and layers is not None
    unmeasured = [e.name for e in mask.index if measured and e.name not in {*(layers or ()), *frozen, *named.keep}]
    left_alone = sorted({*frozen, *named.keep, *unmeasured})
    covered = None
    if criterion.reads_recording and reader is not None and reader.info.sample is not None:
        _require_single_weights(granularity, pattern)
        covered = reader.active
    groups: dict[str, Any] = {
        "mask": mask,
        "granularity": granularity,
        "producers": producers,
        "frozen": left_alone,
        "covered": covered,
    }
    own = named.on_the_way(progress)

    def ranked(scores: Scores, sparsity: float) -> Selection:
        return select(scores, sparsity=sparsity, scope=scope, layer_sparsity=own, theta=theta, **groups)

    choose: Callable[[Scores], Selection] = partial(select_zero, **groups)
    if pattern is not None:
        choose = partial(select_pattern, mask=mask, pattern=pattern, frozen=left_alone)
    elif sparsity is not None:
        choose = partial(ranked, sparsity=sparsity)
    candidates = mask.numpy().copy()
    for name in left_alone:
        candidates[mask.index[name].offset : mask.index[name].stop] = False
    unscored = 0
    if covered is not None:
        unscored = int(np.count_nonzero(candidates & ~covered))
        candidates &= covered
    inputs = read_inputs(
        criterion,
        theta,
        mask,
        reader,
        fit,
        max_bytes=max_bytes,
        layers=layers,
        project=lambda primary: choose(Scores(primary)).mask.numpy(),
        candidates=candidates,
        ridge=ridge,
        first_order=first_order,
        exponent=criterion.choose_exponent(exponent),
        device=device,
        seed=seed,
    )
    scores = criterion.score(inputs)
    new = scores.theta
    if new is not None and covered is not None:
        new = np.where(covered, new, theta)
    selection, reconnected, remarks = choose(scores), None, list(scores.remarks)
    if dead_ends is not None and sparsity is not None:
        plain = selection
        try:
            selection = without_dead_ends(ranked, scores, sparsity, plain, dead_ends, in_steps=not own)
            reconnected = int(np.count_nonzero(selection.mask.numpy() & ~plain.mask.numpy()))
        except DataError as error:
            remarks.append(f"dead ends are pruned as they are scored: {error}")
    return Choice(
        selection,
        new,
        frozen,
        unrecorded,
        unmeasured,
        named.keep,
        _unmoved(inputs, fit, candidates),
        reconnected=reconnected,
        of_scores=remarks,
        unscored=unscored,
    )


def _require_single_weights(granularity: str, pattern: Pattern | None) -> None:
    """Refuse to prune groups of weights of which only some are recorded.

    Raises:
        UsageError: Groups.
    """
    if granularity != "parameter" or pattern is not None:
        raise UsageError(
            f"`granularity={granularity}`" if pattern is None else f"`pattern={pattern}`",
            expected="single weights, because the recording has a share of the columns and nothing is known of the "
            "other weights of a group",
            found="groups",
            remedy="record all with `columns=1`, or choose a criterion that reads no recording, such as magnitude",
        )


def untrained_tensors(model: nn.Module, index: ParameterIndex, said: Collection[str]) -> list[str]:
    """Names of the prunable tensors that weren't trained: nothing is known about them, a score of 0 included.

    Args:
        model: The network.
        index: Its prunable parameters.
        said: Those that no recorded step trained. Where nobody says anything, these are the tensors for which the
            network's own code sets ``requires_grad=False``.
    """
    parameters = named_parameters(model)
    names = [entry.name for entry in index]
    return [name for name in names if (name in said if said else not parameters[name].requires_grad)]


def _unmoved(inputs: CriterionInputs, fit: Fit | None, candidates: npt.NDArray[np.bool_]) -> int | None:
    """Number of kept weights that were recorded and trained, but that no recorded step moved.

    Their gradient was 0 in every step, or each step was smaller than the rounding of the weight. None where the
    criterion reads neither a fit to single weights nor squared gradients.
    """
    if inputs.mean_squared_gradient is not None:
        still = inputs.mean_squared_gradient == 0
    elif fit is not None and fit.granularity == "parameter":
        # Only a column of zeros has a KKT score of exactly 0.
        still = (np.atleast_2d(float64(inputs.dual_correlation)) == 0).all(0)
    else:
        return None
    return int(np.count_nonzero(still & candidates))
