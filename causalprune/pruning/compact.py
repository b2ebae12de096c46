"""Remove filters and neurons whose weights are all pruned, so that dense kernels have less work."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from causalprune.base.errors import DataError, MismatchError
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.channels import ChannelGraph, Channels, probes

TOLERANCE = 1e-4
"""Largest difference of the outputs that rounding may cause, relative to the largest output."""


@dataclass(frozen=True)
class CompactedLayer:
    """The output units (filters or neurons) of one layer, before and after.

    Attributes:
        name: Name of its weight.
        units: Number of units before.
        dead: Number of units whose weights were all pruned.
        removed: Number of units that were removed.
    """

    name: str
    units: int
    dead: int
    removed: int


@dataclass(frozen=True)
class CompactedModel:
    """A smaller network that computes the same.

    Attributes:
        model: The network, in evaluation mode.
        layers: Its layers.
        max_difference: Largest difference between its outputs and those of the masked network, on random inputs.
    """

    model: nn.Module
    layers: tuple[CompactedLayer, ...]
    max_difference: float


def compact_model(
    model: nn.Module, index: ParameterIndex, keep: Mapping[str, torch.Tensor], input_shape: tuple[int, ...]
) -> CompactedModel:
    """Copy a network without the output units whose weights are all pruned.

    A pruned unit may still output a constant c: what its bias and its BatchNorm make of zero. One dead channel of a
    layer is kept. It takes over the weights with which the next layers consume the other dead channels, each
    multiplied by c/c_kept. If every c is zero, none is kept. The outputs are the same up to rounding, also at padded
    borders. A channel that several layers produce (across a residual connection) is removed if it is dead in all of
    them. The outputs of the network are never removed. :mod:`causalprune.pruning.channels` finds out which layers
    produce and consume a channel.

    Args:
        model: The network with its pruned weights at zero; not changed.
        index: Its prunable parameters.
        keep: Bool tensors by parameter name; True means keep.
        input_shape: Shape of one sample.

    Raises:
        UsageError: torch-pruning is missing.
        DataError: No unit has all its weights pruned, or none of these units can be removed.
        MismatchError: torch-pruning can't follow the network, or the smaller network computes something else.
    """
    before = copy.deepcopy(model).eval()
    after = copy.deepcopy(before)
    dead = dead_units(index, keep)
    if not any(dead):
        raise DataError(
            "checkpoint",
            expected="a filter or neuron with every weight pruned",
            found="none",
            remedy="prune with apply-mask `granularity=channel` or filter; a compact network can't leave out single "
            "weights",
        )
    inputs = probes(before, input_shape)
    graph = ChannelGraph(after, index, input_shape, wanted_by="`compact`")
    removed = [0] * len(index)
    try:
        for first in [channels.producers[0] for channels in graph]:
            # Found anew: earlier removals move the columns of a layer that consumes several sets of channels.
            channels = graph.produced_by(first)
            gone = 0 if channels is None else _remove(graph, after, channels, dead, inputs)
            for number in () if channels is None else channels.producers:
                removed[number] = gone
        if not any(removed):
            raise DataError(
                "checkpoint",
                expected="a pruned channel that can be removed",
                found=f"none among {sum(map(len, dead))} dead filters and neurons (outputs, or channels that other "
                "layers write, too)",
                remedy="prune with apply-mask `granularity=channel`",
            )
        with torch.no_grad():
            expected, found = before(inputs), after(inputs)
        difference = float((expected - found).abs().max()) if expected.shape == found.shape else float("inf")
        if not difference <= TOLERANCE * float(expected.abs().max()):
            raise ValueError(f"a difference of {difference:.3g}")
    except (RuntimeError, ValueError, IndexError) as error:
        raise MismatchError(
            f"compact {type(model).__name__}",
            expected="the outputs of the masked network",
            found=str(error).splitlines()[0],
            remedy="export it without `compact`",
        ) from error
    layers = (
        CompactedLayer(entry.name, entry.num_units, len(units), gone)
        for entry, units, gone in zip(index, dead, removed, strict=True)
    )
    return CompactedModel(after, tuple(layers), difference)


def dead_units(index: ParameterIndex, keep: Mapping[str, torch.Tensor]) -> list[list[int]]:
    """For each prunable tensor, the filters or neurons whose weights are all pruned."""
    alive = (keep[entry.name].movedim(entry.filter_axis, 0).flatten(1).any(1) for entry in index)
    return [(~units).nonzero()[:, 0].tolist() for units in alive]


def _remove(
    graph: ChannelGraph, model: nn.Module, channels: Channels, dead: Sequence[Sequence[int]], inputs: torch.Tensor
) -> int:
    """Remove the removable channels among those that are dead in every producer; return their number."""
    everywhere = sorted(set[int].intersection(*(set(dead[number]) for number in channels.producers)))
    if not everywhere:
        return 0
    constants = _constants(model, channels.consumers, everywhere, inputs)
    loud = [channel for channel, values in constants.items() if any(values.values())]
    going = list(constants)
    if loud:
        kept = max(loud, key=lambda channel: min(abs(value) for value in constants[channel].values()))
        # A consumer that sees the kept channel as zero can't get the other constants from it.
        heard = [consumer for consumer, value in constants[kept].items() if value]
        going = [c for c in constants if c != kept and all(not v or r in heard for r, v in constants[c].items())]
        for channel in going:
            # Every consumer takes from the kept channel what it took from this one.
            for consumer, value in constants[channel].items():
                if value:
                    weight, columns = consumer.get_parameter("weight").detach(), channels.consumers[consumer]
                    weight[:, columns[kept]] += weight[:, columns[channel]] * (value / constants[kept][consumer])
    if len(going) == channels.count:
        going = going[1:]
    if going:
        graph.remove(channels, going)
    return len(going)


def _constants(
    model: nn.Module, consumers: Mapping[nn.Module, torch.Tensor], which: Sequence[int], inputs: torch.Tensor
) -> dict[int, dict[nn.Module, float]]:
    """The channels that are constant for every consumer, with the constant that each consumer sees."""
    lowest: dict[nn.Module, torch.Tensor] = {}
    highest: dict[nn.Module, torch.Tensor] = {}

    def look(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        axis = -1 if isinstance(module, nn.Linear) else 1
        seen = arguments[0].movedim(axis, 0)[consumers[module][list(which)].to(arguments[0].device)].flatten(1)
        if module in lowest:
            seen = torch.cat([seen, lowest[module][:, None], highest[module][:, None]], 1)
        lowest[module], highest[module] = seen.amin(1), seen.amax(1)

    with ExitStack() as hooks, torch.no_grad():
        for module in consumers:
            hooks.enter_context(module.register_forward_pre_hook(look))
        model(inputs)
    is_constant = torch.stack([(lowest[consumer] == highest[consumer]).cpu() for consumer in consumers]).all(0)
    values = {consumer: lowest[consumer].tolist() for consumer in consumers}
    return {
        channel: {consumer: values[consumer][position] for consumer in consumers}
        for position, channel in enumerate(which)
        if is_constant[position]
    }
