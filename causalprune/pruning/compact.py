"""Remove filters and neurons whose weights are all pruned, so that dense kernels have less work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs, forward, network_outputs
from causalprune.base.errors import DataError, MismatchError
from causalprune.models.modes import evaluation_mode
from causalprune.models.parameters import ParameterIndex
from causalprune.models.wrappers import plain_copy
from causalprune.pruning.channels import FAILURES, ChannelGraph, Channels, PrunableLayer, reason

TOLERANCE = 1e-4
"""Largest difference of the outputs that rounding may cause, relative to the largest output."""

_CONSTANT = 1e-6
"""Largest spread of a constant, relative to it: kernels differ in the last bit between the elements of a tensor."""

BATCH = 32
"""Samples per forward pass, where batches are made."""


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
        max_difference: Largest difference between its outputs and those of the masked network.
    """

    model: nn.Module
    layers: tuple[CompactedLayer, ...]
    max_difference: float


def compact_model(
    model: nn.Module,
    index: ParameterIndex,
    keep: Mapping[str, torch.Tensor],
    batches: Sequence[Inputs],
    held_out: Sequence[Inputs] = (),
) -> CompactedModel:
    """Copy a network without the output units whose weights are all pruned.

    A pruned unit may still output a constant c: what its bias and its BatchNorm make of zero. One dead channel of a
    layer is kept. It takes over the weights with which the next layers consume the other dead channels, each
    multiplied by c/c_kept. If every c is zero, none is kept. The outputs are the same up to rounding, also at padded
    borders. A channel that several layers produce (across a residual connection) is removed if it is dead in all of
    them. A dead channel that isn't constant stays, such as one that a gate multiplies with what it computes from the
    input. The outputs of the network are never removed. :mod:`causalprune.pruning.channels` finds out which layers
    produce and consume a channel.

    Args:
        model: The network with its pruned weights at zero; not changed.
        index: Its prunable parameters.
        keep: Bool tensors by parameter name; True means keep.
        batches: Normalized inputs of the data; they decide what is constant. Batches may differ in their shapes.
        held_out: Others, on which the networks are compared, too.

    Raises:
        UsageError: torch-pruning is missing.
        DataError: No unit has all its weights pruned, or none of these units can be removed.
        MismatchError: torch-pruning can't follow the network, or the smaller network computes something else.
    """
    after = plain_copy(model)
    dead = dead_units(index, keep)
    if not any(dead):
        raise DataError(
            "checkpoint",
            expected="a filter or neuron with every weight pruned",
            found="none",
            remedy="prune with apply-mask `granularity=channel` or filter; a compact network can't leave out single "
            "weights",
        )
    # What the network itself raises at its own inputs is said as such.
    removal = Removal(after, index, batches, wanted_by="`compact`")
    removed = [0] * len(index)
    try:
        for producers in removal.families():
            gone = removal.remove(producers, dead)
            for number in producers:
                removed[number] = gone
        if not any(removed):
            raise DataError(
                "checkpoint",
                expected="a pruned channel that can be removed",
                found=f"none among {sum(map(len, dead))} dead filters and neurons (outputs, channels that other "
                "layers write, too, or that depend on the input nevertheless)",
                remedy="prune with apply-mask `granularity=channel`",
            )
        with evaluation_mode(model):
            off, largest = compare_outputs(model, after, [*batches, *held_out])
        if not off <= TOLERANCE * largest:
            raise ValueError(f"a difference of {off:.3g}")
    except FAILURES as error:
        raise MismatchError(
            f"compact {type(model).__name__}",
            expected="the outputs of the masked network",
            found=reason(error),
            remedy="export it without `compact`",
        ) from error
    layers = (
        CompactedLayer(entry.name, entry.num_units, len(units), gone)
        for entry, units, gone in zip(index, dead, removed, strict=True)
    )
    return CompactedModel(after, tuple(layers), off)


def dead_units(index: ParameterIndex, keep: Mapping[str, torch.Tensor]) -> list[list[int]]:
    """For each prunable tensor, the filters or neurons whose weights are all pruned."""
    alive = (keep[entry.name].movedim(entry.filter_axis, 0).reshape(entry.num_units, -1).any(1) for entry in index)
    return [(~units).nonzero()[:, 0].tolist() for units in alive]


@torch.no_grad()
def compare_outputs(first: nn.Module, second: nn.Module, batches: Iterable[Inputs]) -> tuple[float, float]:
    """The largest difference between the outputs of two networks in evaluation mode, and the first's largest output.

    The difference is infinite where the shapes differ, and NaN where an output is.
    """
    off, largest = torch.zeros(()), torch.zeros(())
    for part in batches:
        expected, found = network_outputs(first, part), network_outputs(second, part)
        if expected.shape != found.shape:
            return float("inf"), float(expected.abs().max())
        # torch.maximum hands NaN on.
        off = torch.maximum(off, (expected - found).abs().max().cpu().float())
        largest = torch.maximum(largest, expected.abs().max().cpu().float())
    return float(off), float(largest)


class Removal:
    """Removes dead channels from a network, in place.

    What each layer reads is looked at once, before anything is removed, because removals change it only by rounding.

    Args:
        model: The network in evaluation mode, with dead units' weights at zero; changed by :meth:`remove`.
        index: Its prunable parameters.
        batches: Normalized inputs.
        wanted_by: The option that needs it, for messages.

    Raises:
        UsageError: torch-pruning is missing.
        MismatchError: torch-pruning can't follow the network.
    """

    def __init__(self, model: nn.Module, index: ParameterIndex, batches: Sequence[Inputs], *, wanted_by: str) -> None:
        self._graph = ChannelGraph(model, index, batches[0], wanted_by=wanted_by)
        self._seen = _ranges(model, batches)

    def families(self) -> list[tuple[int, ...]]:
        """The producers of all removable channels."""
        return [channels.producers for channels in self._graph]

    def remove(self, producers: Sequence[int], dead: Sequence[Sequence[int]]) -> int:
        """Remove the removable channels among those that are dead in every producer; return their number."""
        everywhere = sorted(set[int].intersection(*(set(dead[number]) for number in producers)))
        # Found anew: earlier removals move the columns of a layer that consumes several sets of channels.
        channels = self._graph.produced_by(producers[0])
        if not everywhere or channels is None:
            return 0
        constants = self._constants(channels.consumers, everywhere)
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
                        weight, columns = cast(torch.Tensor, consumer.weight).detach(), channels.consumers[consumer]
                        weight[:, columns[kept]] += weight[:, columns[channel]] * (value / constants[kept][consumer])
        if len(going) == channels.count:
            going = going[1:]
        if going:
            self._remove(channels, going)
        return len(going)

    def _remove(self, channels: Channels, going: list[int]) -> None:
        for consumer, columns in channels.consumers.items():
            low, high = self._seen[consumer]
            left = torch.ones(len(low), dtype=torch.bool)
            left[columns[going].flatten()] = False
            self._seen[consumer] = low[left], high[left]
        self._graph.remove(channels, going)

    def _constants(
        self, consumers: Mapping[nn.Module, torch.Tensor], which: Sequence[int]
    ) -> dict[int, dict[nn.Module, float]]:
        """The channels that are constant for every consumer, with the constant that each consumer sees."""
        if not all(consumer in self._seen for consumer in consumers):
            # One whose weight a function uses, without its layer being called.
            return {}
        found: dict[int, dict[nn.Module, float]] = {}
        for channel in which:
            values = {}
            for consumer, columns in consumers.items():
                low, high = (bound[columns[channel]] for bound in self._seen[consumer])
                least, most = float(low.min()), float(high.max())
                if not most - least <= _CONSTANT * abs(most):
                    break
                values[consumer] = most
            else:
                found[channel] = values
        return found


def _ranges(model: nn.Module, batches: Iterable[Inputs]) -> dict[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """The least and the largest value of each input channel (or feature) of each layer that is called."""
    seen: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(module: nn.Module, arguments: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        axis = -1 if isinstance(module, nn.Linear) else 1
        by_channel = next(iter((*arguments, *named.values()))).movedim(axis, 0).flatten(1).cpu()
        low, high = by_channel.amin(1), by_channel.amax(1)
        if module in seen:
            low, high = torch.minimum(low, seen[module][0]), torch.maximum(high, seen[module][1])
        seen[module] = low, high

    with ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            if isinstance(module, PrunableLayer):
                hooks.enter_context(module.register_forward_pre_hook(look, with_kwargs=True))
        for part in batches:
            forward(model, part)
    return seen
