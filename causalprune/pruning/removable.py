"""Which filters, neurons or channels of a network may be pruned: for channels, by removing some of them and comparing.

A dependency graph guesses what a function between two layers does to the channels. Some functions couple channels that
it takes for independent: ``glu`` and ``pixel_shuffle``, a ``view`` that mixes channels, a softmax across them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs
from causalprune.base.errors import MismatchError
from causalprune.base.specs import ModelSpec
from causalprune.models.parameters import ParameterIndex
from causalprune.models.wrappers import plain_copy
from causalprune.pruning.channels import FAILURES, ChannelGraph, last_layer, probes
from causalprune.pruning.compact import TOLERANCE, Removal, compare_outputs
from causalprune.trajectory.column_groups import groups_per_tensor

Family = tuple[int, ...]
"""The numbers of the layers that produce the same channels."""


def prunable_producers(
    granularity: str, model: nn.Module, index: ParameterIndex, spec: ModelSpec, samples: Inputs | None = None
) -> tuple[list[Family] | None, list[Family]]:
    """The layers whose filters, neurons or channels may be pruned; layers that produce the same channels are one item.

    Args:
        granularity: What is pruned as a whole.
        model: The network; put into evaluation mode.
        index: Its prunable parameters.
        spec: What it is.
        samples: Normalized inputs, (N, …) each, on which removed channels are tried out, and the layer of the outputs
            is found; random ones by default.

    Returns:
        The layers that may be pruned, or None where single weights or whole layers are. For channels also those that
        seem to be independent of each other, but can't be removed.

    Raises:
        UsageError: A library is missing.
        MismatchError: The network has no such layer.
    """
    producers: list[Family]
    stuck: list[Family] = []
    if granularity == "channel":
        inputs = probes(model, spec.input_shape) if samples is None else samples
        graph = ChannelGraph(plain_copy(model.eval()), index, inputs, wanted_by="`granularity=channel`")
        found = [channels.producers for channels in graph]
        stuck = _stuck(model, index, found, inputs)
        producers = [family for family in found if family not in stuck]
    elif granularity in ("filter", "neuron"):
        groups_per_tensor(index, granularity)
        inputs = probes(model, spec.input_shape, 2) if samples is None else samples
        outputs = last_layer(plain_copy(model.eval()), index, inputs)
        producers = [(number,) for number in range(len(index)) if number not in outputs]
    else:
        return None, stuck
    if not producers:
        held = ", ".join(index.entries[number].name for family in stuck for number in family)
        raise MismatchError(
            f"`granularity={granularity}`",
            expected=f"a network with a {granularity} that can be {'removed' if stuck else 'pruned'}",
            found=f"only such in {spec.name} that hang together ({held})" if stuck else f"outputs only in {spec.name}",
            remedy="use `granularity=parameter`",
        )
    return producers, stuck


def _stuck(model: nn.Module, index: ParameterIndex, families: list[Family], inputs: Inputs) -> list[Family]:
    """The families whose channels can't be removed: the network fails without some of them, or computes otherwise.

    All are tried at once, and one half after the other where that fails.
    """
    if not families:
        return []
    useless = _without_gain(model, index, families, inputs)
    if useless is not None:
        return useless
    if len(families) == 1:
        return families
    half = len(families) // 2
    stuck = [f for part in (families[:half], families[half:]) for f in _stuck(model, index, part, inputs)]
    rest = [family for family in families if family not in stuck]
    # Either half may fit by itself, but not both.
    fits = not rest or _without_gain(model, index, rest, inputs) is not None
    return stuck if fits else [*stuck, *(family for family in rest if family in families[half:])]


def _without_gain(
    model: nn.Module, index: ParameterIndex, families: Sequence[Family], inputs: Inputs
) -> list[Family] | None:
    """Remove half of the channels of each family from a copy of the network.

    Returns:
        The families of which not one could be removed, though several were dead: none is constant. None if the network
        doesn't compute what the masked one does.
    """
    masked = plain_copy(model)
    dead: list[list[int]] = [[] for _ in index]
    generator = torch.Generator().manual_seed(0)
    for family in families:
        units = index.entries[family[0]].num_units
        chosen = sorted(torch.randperm(units, generator=generator)[: max(1, units // 2)].tolist())
        for number in family:
            dead[number] = chosen
            masked.get_parameter(index.entries[number].name).detach()[chosen] = 0
    smaller = plain_copy(masked)
    removal = Removal(smaller, index, [inputs], wanted_by="`granularity=channel`")
    try:
        gone = [removal.remove(family, dead) for family in families]
        off, largest = compare_outputs(masked, smaller, [inputs])
    except FAILURES:
        return None
    if not off <= TOLERANCE * largest:
        return None
    return [family for family, count in zip(families, gone, strict=True) if not count and len(dead[family[0]]) > 1]
