"""The removable channels of a network: which layers produce them and which consume them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from causalprune.base.compute.inputs import Inputs, example_inputs, forward, logits_of, samples_between
from causalprune.base.compute.shapes import InputShape
from causalprune.base.errors import MismatchError, missing_extra
from causalprune.models.parameters import ParameterIndex

PrunableLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
"""The layers that torch-pruning takes units from."""

FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    ZeroDivisionError,
)
"""What torch-pruning raises on a network that it can't follow, and a network whose code doesn't fit what is left."""


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels 0 … C−1 that can be removed one by one.

    Channel c consists of output unit c of each producer. There are several producers where a residual connection adds
    their outputs, and where a depthwise convolution follows another layer.

    Attributes:
        producers: Numbers of the producers' weights in the parameter index, increasing.
        consumers: For each consuming layer, its (C, k) input columns that belong to the channels; k is 1, or the number
            of flattened positions per channel.
    """

    producers: tuple[int, ...]
    consumers: dict[nn.Module, torch.Tensor]

    @property
    def count(self) -> int:
        """C."""
        return len(next(iter(self.consumers.values())))


class ChannelGraph:
    """Which layers produce and consume which channels, from torch-pruning's dependency graph (arXiv 2301.12900).

    Args:
        model: The network, in evaluation mode.
        index: Its prunable parameters.
        inputs: What it is called with, of which one sample is used.
        wanted_by: The option that needs the graph, for messages.

    Raises:
        UsageError: torch-pruning is missing.
        MismatchError: torch-pruning can't follow the network.
    """

    def __init__(self, model: nn.Module, index: ParameterIndex, inputs: Inputs, *, wanted_by: str) -> None:
        try:
            import torch_pruning
        except ImportError as error:
            raise missing_extra(f"{wanted_by} needs torch-pruning", "compact") from error
        self._library: Any = torch_pruning
        # None for what no filters or neurons can be taken from: attention, recurrent layers, bare parameters.
        self._layers = [model.get_submodule(entry.layer) if entry.kind == "layer" else None for entry in index]
        self._numbers = {layer: number for number, layer in enumerate(self._layers) if layer is not None}
        try:
            # Its guesses need no warnings: :mod:`causalprune.pruning.removable` tries them.
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                self._graph = torch_pruning.DependencyGraph().build_dependency(
                    model, samples_between(inputs, 0, 1), output_transform=_output_tensors, verbose=False
                )
        except FAILURES as error:
            raise MismatchError(
                f"{wanted_by} of {type(model).__name__}",
                expected="a network whose channels torch-pruning can follow",
                found=reason(error),
                remedy="do without it",
            ) from error

    def __iter__(self) -> Iterator[Channels]:
        """All removable channels, in the order of their first producers. The outputs of a network aren't removable."""
        seen: set[int] = set()
        for number in range(len(self._layers)):
            if number not in seen:
                channels = self.produced_by(number)
                if channels is not None:
                    seen.update(channels.producers)
                    yield channels

    def produced_by(self, number: int) -> Channels | None:
        """The channels that a layer produces, or None if they can't be removed.

        They can't be removed if nothing consumes them, if one of their producers isn't prunable or is a convolution in
        groups of several channels, if a bare parameter or a normalization across channels acts on them, or if unit c of
        another producer isn't channel c, as after a shortcut that pads channels.

        Args:
            number: Number of its weight in the parameter index.
        """
        layer = self._layers[number]
        if not isinstance(layer, PrunableLayer):
            return None
        units = list(range(_units(layer)))
        # One unit first: where many layers are joined, as in some transformers, all units would take minutes.
        found = self._parts(layer, units[:1]) and self._parts(layer, units)
        if not found or not found[1]:
            return None
        return Channels(tuple(sorted(found[0])), found[1])

    def remove(self, channels: Channels, which: list[int]) -> None:
        """Remove some of the channels from the network."""
        self._group(cast(nn.Module, self._layers[channels.producers[0]]), which).prune()

    def _parts(self, layer: nn.Module, units: list[int]) -> tuple[set[int], dict[nn.Module, torch.Tensor]] | None:
        """The producers of these units' channels and the consumers' columns; None if they can't be removed."""
        try:
            group = self._group(layer, units)
        except ValueError:  # the layer isn't in the graph
            return None
        producers: set[int] = set()
        consumers: dict[nn.Module, list[torch.Tensor]] = {}
        for position, item in enumerate(group):
            module, consumes = item.dep.target.module, "in_channels" in item.dep.handler.__name__
            if isinstance(module, PrunableLayer):
                if getattr(module, "groups", 1) != 1 and not _is_depthwise(module):
                    return None
                if consumes and position > 0:
                    columns = _by_channel(item, len(units))
                    if columns is None:
                        return None
                    consumers.setdefault(module, []).append(columns)
                elif (
                    module not in self._numbers
                    or _units(module) != _units(layer)
                    or list(item.idxs) != list(item.root_idxs)
                ):
                    return None
                else:
                    producers.add(self._numbers[module])
            elif isinstance(module, nn.Parameter) or (
                not isinstance(module, _BatchNorm) and list(module.parameters(recurse=False))
            ):
                return None
        return producers, {module: torch.cat(columns, 1) for module, columns in consumers.items()}

    def _group(self, layer: nn.Module, units: list[int]) -> Any:
        linear = isinstance(layer, nn.Linear)
        prune = self._library.prune_linear_out_channels if linear else self._library.prune_conv_out_channels
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return self._graph.get_pruning_group(layer, prune, idxs=units)


def reason(error: Exception) -> str:
    """The first line of what an exception says."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def last_layer(model: nn.Module, index: ParameterIndex, inputs: Inputs) -> frozenset[int]:
    """Numbers of the weights with which a network in evaluation mode computes its outputs.

    They are those of the layer that it calls last: one matrix, but all of a recurrent layer's, of the last of the
    layers that are stacked in it.

    Args:
        model: The network.
        index: Its prunable parameters.
        inputs: What it is called with; two samples or more, because normalization may refuse a single one.

    Raises:
        MismatchError: The network calls none of them.
    """
    called: list[int] = []
    with ExitStack() as hooks, torch.no_grad():
        for number, entry in enumerate(index):
            if entry.kind == "named":
                continue
            # The function that computes attention uses the last projection without calling its layer.
            owner, _, last = entry.layer.rpartition(".")
            within = last == "out_proj" and isinstance(model.get_submodule(owner), nn.MultiheadAttention)
            layer = model.get_submodule(owner if within else entry.layer)
            hooks.enter_context(layer.register_forward_hook(lambda *_, number=number: called.append(number)))
        forward(model, inputs)
    if not called:
        raise MismatchError(
            f"{type(model).__name__}",
            expected="a network that calls its layers, which shows the one of the outputs",
            found="one that calls none",
            remedy="use `granularity=parameter`",
        )
    final = index.entries[called[-1]]
    if final.kind != "recurrent":
        return frozenset(called[-1:])
    same = (final.layer, final.kind, _stacked(final.name))
    found = enumerate((entry.layer, entry.kind, _stacked(entry.name)) for entry in index)
    return frozenset(number for number, which in found if which == same)


def _stacked(name: str) -> str:
    """In which of the layers that are stacked in a recurrent one a weight is, as ``0`` of ``weight_hh_l0_reverse``."""
    found = re.search(r"_l(\d+)(?:_reverse)?(?:_orig|\.original)?$", name)
    return found[1] if found else ""


def probes(model: nn.Module, input_shape: InputShape, count: int = 4) -> Inputs:
    """Random inputs of ``count`` samples, the same in every call, on the device of the network."""
    return example_inputs(input_shape, count, device=next(model.parameters()).device, random=True)


def _output_tensors(outputs: Any) -> list[torch.Tensor]:
    """All tensors that a network puts out; of another object those that count."""
    found = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    return found or [logits_of(outputs)]


def _is_depthwise(layer: PrunableLayer) -> bool:
    """Whether a layer is a convolution that computes each channel from one channel."""
    return not isinstance(layer, nn.Linear) and layer.groups == layer.in_channels == layer.out_channels


def _units(layer: nn.Module) -> int:
    # No parameter where it is computed, as under spectral normalization.
    return int(cast(torch.Tensor, layer.weight).shape[0])


def _by_channel(item: Any, count: int) -> torch.Tensor | None:
    """The columns of a consumer, one row per channel; None if channels have different numbers of columns."""
    if None in item.root_idxs:
        return None
    roots, columns = torch.tensor(item.root_idxs), torch.tensor(item.idxs)
    if not torch.equal(torch.bincount(roots, minlength=count), torch.full((count,), len(roots) // count)):
        return None
    return columns[torch.argsort(roots, stable=True)].view(count, -1)
