"""Remove filters and neurons whose every weight is pruned, so that dense kernels have less to do."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from causalprune.errors import DataError, MismatchError, UsageError
from causalprune.parameters import ParameterIndex

TOLERANCE = 1e-4
"""Largest difference of the outputs that rounding may make, relative to the largest output."""

_PROBES = 4
_Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@dataclass(frozen=True)
class CompactedLayer:
    """What became of one layer's output units, its filters or neurons.

    Attributes:
        name: Name of its weight.
        units: How many it had.
        dead: How many of them had every weight pruned.
        removed: How many were removed.
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
        max_difference: Largest difference of its outputs from those of the masked network, on random inputs.
    """

    model: nn.Module
    layers: tuple[CompactedLayer, ...]
    max_difference: float


def compact_model(
    model: nn.Module, index: ParameterIndex, keep: Mapping[str, torch.Tensor], input_shape: tuple[int, ...]
) -> CompactedModel:
    """Copy a network without the output units whose every weight is pruned.

    A dead unit isn't silent: it puts out what its bias and its BatchNorm make of zero, one constant c. Of all dead
    units of a layer one is kept, and takes over the weights with which the next layer reads the others, each times
    c/c_kept; where every c is zero, none is kept. So the outputs are the same but for rounding, padding included. Units
    that share their channel with another layer's, across a residual connection, stay, and so do the network's outputs.

    Which columns of which layers belong to a unit is known by torch-pruning's dependency graph (Fang et al.,
    arXiv 2301.12900).

    Args:
        model: The network with its pruned weights at zero; left as it was.
        index: Its prunable parameters.
        keep: Bool tensors by parameter name, True for unpruned.
        input_shape: Shape of one sample.

    Raises:
        UsageError: torch-pruning is missing.
        DataError: No unit has every weight pruned, or none of those that have can be removed.
        MismatchError: The smaller network computes something else: a kind of network that this can't handle.
    """
    tp = _torch_pruning()
    before = copy.deepcopy(model).eval()
    after = copy.deepcopy(before)
    dead = {entry.name: _dead_units(keep[entry.name], entry.filter_axis) for entry in index}
    if not any(dead.values()):
        raise DataError(
            "checkpoint",
            expected="a filter or neuron with every weight pruned",
            found="none",
            remedy="prune with apply-mask --granularity filter or neuron; a compact network can't leave out single "
            "weights",
        )
    inputs = _probes(before, input_shape)
    graph = tp.DependencyGraph().build_dependency(after, example_inputs=inputs[:1])
    layers = []
    for entry in index:
        layer = after.get_submodule(entry.layer)
        removed = 0
        if dead[entry.name] and isinstance(layer, _Layer) and layer.weight is after.get_parameter(entry.name):
            removed = _remove(tp, graph, after, layer, dead[entry.name], inputs)
        layers.append(CompactedLayer(entry.name, entry.shape[entry.filter_axis], len(dead[entry.name]), removed))
    if not any(layer.removed for layer in layers):
        raise DataError(
            "checkpoint",
            expected="a pruned filter or neuron that can be removed",
            found=f"{sum(map(len, dead.values()))} whose channels others need (outputs, or a residual connection)",
        )
    with torch.no_grad():
        expected, found = before(inputs), after(inputs)
    difference = float((expected - found).abs().max()) if expected.shape == found.shape else float("inf")
    if not difference <= TOLERANCE * float(expected.abs().max().clamp(min=1)):
        raise MismatchError(
            f"compact {type(model).__name__}",
            expected="the outputs of the masked network",
            found=f"a difference of {difference:.3g}",
            remedy="export it without --compact",
        )
    return CompactedModel(after, tuple(layers), difference)


def _dead_units(keep: torch.Tensor, axis: int) -> list[int]:
    alive = keep.movedim(axis, 0).flatten(1).any(1)
    return (~alive).nonzero()[:, 0].tolist()


def _probes(model: nn.Module, input_shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    return torch.randn(_PROBES, *input_shape, generator=generator).to(device)


def _remove(tp: Any, graph: Any, model: nn.Module, layer: _Layer, dead: list[int], inputs: torch.Tensor) -> int:
    """Remove what can be of one layer's dead units; returns how many."""
    prune = tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else tp.prune_conv_out_channels
    columns = {unit: _columns(graph.get_pruning_group(layer, prune, idxs=[unit])) for unit in dead}
    consumers = columns[dead[0]]
    if not consumers or any(found is None or found.keys() != consumers.keys() for found in columns.values()):
        return 0
    constants = {}
    for unit, found in columns.items():
        values = _constants(model, found or {}, inputs)
        if values is not None:
            constants[unit] = values
    loud = [unit for unit, values in constants.items() if any(values.values())]
    going = list(constants)
    if loud:
        kept = max(loud, key=lambda unit: min(abs(value) for value in constants[unit].values()))
        # A consumer that sees the kept unit as zero can't be told of the others through it.
        heard = [consumer for consumer, value in constants[kept].items() if value]
        going = [u for u in constants if u != kept and all(not v or c in heard for c, v in constants[u].items())]
        for unit in going:
            _take_over(columns, constants, kept, unit)
    if len(going) == _units(layer):
        going = going[1:]
    if going:
        graph.get_pruning_group(layer, prune, idxs=going).prune()
    return len(going)


def _units(layer: _Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _columns(group: Any) -> dict[nn.Module, list[int]] | None:
    """The input columns of each layer that reads a unit; None where the unit isn't one layer's own."""
    found: dict[nn.Module, list[int]] = {}
    for position, (dependency, indices) in enumerate(group):
        module, reads = dependency.target.module, "in_channels" in dependency.handler.__name__
        if isinstance(module, _Layer):
            if getattr(module, "groups", 1) != 1 or (position > 0 and not reads):
                return None
            if position > 0:
                found.setdefault(module, []).extend(map(int, indices))
        elif not isinstance(module, _BatchNorm) and list(module.parameters(recurse=False)):
            # A LayerNorm, for one, would see other statistics without the unit.
            return None
    return found


def _constants(
    model: nn.Module, consumers: Mapping[nn.Module, list[int]], inputs: torch.Tensor
) -> dict[nn.Module, float] | None:
    """What each consumer sees of one dead unit; None if it isn't one constant."""
    seen: dict[nn.Module, torch.Tensor] = {}

    def look(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        axis = -1 if isinstance(module, nn.Linear) else 1
        chosen = torch.tensor(consumers[module], device=arguments[0].device)
        seen[module] = arguments[0].index_select(axis, chosen)

    hooks = [module.register_forward_pre_hook(look) for module in consumers]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if any(bool((values != values.flatten()[0]).any()) for values in seen.values()):
        return None
    return {module: float(values.flatten()[0]) for module, values in seen.items()}


def _take_over(
    columns: Mapping[int, dict[nn.Module, list[int]] | None],
    constants: Mapping[int, dict[nn.Module, float]],
    kept: int,
    unit: int,
) -> None:
    """Let every consumer read of the kept unit what it read of another."""
    for consumer, value in constants[unit].items():
        if value:
            weight = consumer.get_parameter("weight").detach()
            own, others = (columns[kept] or {})[consumer], (columns[unit] or {})[consumer]
            weight[:, own] += weight[:, others] * (value / constants[kept][consumer])


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise UsageError(
            "--compact", expected="torch-pruning", found=str(error), remedy="pip install 'causalprune[compact]'"
        ) from error
    return torch_pruning
