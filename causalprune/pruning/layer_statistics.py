"""Second moments of each layer's inputs and output gradients: what the cost of a weight within its layer depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs, arranged_as, network_outputs, parts_of
from causalprune.base.compute.precision import full_precision
from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.models.modes import evaluation_mode
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.layer_calls import Convolution, LayerCall, WeightUses, layer_by_layer
from causalprune.pruning.least_squares import Moments
from causalprune.pruning.patches import input_rows, output_rows, sample_slices, weight_rows


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """The statistics of one layer over N samples.

    Attributes:
        inputs: (groups, inputs, inputs) float64: G = (1/N) Σ uuᵀ over samples and positions, about the mean input if
            the layer has a bias.
        squares: (groups, inputs) float64: (1/N) Σu² over samples and positions, about 0 in any case.
        gradients: (groups, outputs) float64: the mean of δ² over samples and positions, where δ is the gradient of a
            sample's loss by an output.
        means: (groups, inputs) float64: the mean of u over samples and positions.
        positions: Positions per sample; 1 for a linear layer that is used once.
        bias: Name of the layer's bias. None if it has none, at its first use if there are several; empty if what it
            adds is no parameter, or another one at another use.
    """

    inputs: torch.Tensor
    squares: torch.Tensor
    gradients: torch.Tensor
    means: torch.Tensor
    positions: float = 1.0
    bias: str | None = None

    def to(self, device: torch.device | str) -> LayerStatistics:
        """The same on a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("inputs", *_VECTORS)}
        return replace(self, **tensors)


DrawnLoss = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Takes outputs, draws targets from what they say, and returns the loss, summed over the samples."""


def layer_statistics(
    model: nn.Module, index: ParameterIndex, batches: Iterable[Inputs], drawn_loss: DrawnLoss, *, seed: int = 0
) -> dict[str, LayerStatistics]:
    """Measure all prunable layers in evaluation mode, with labels drawn from the network's own outputs.

    With drawn labels, G ⊗ E[δδᵀ] is the Kronecker-factored Fisher matrix of a layer (Martens & Grosse, arXiv
    1503.05671; with G summed over the positions of a convolution, Grosse & Martens, arXiv 1602.01407). Memory: G of all
    layers, in float64.

    Args:
        model: The network; not changed.
        index: Its prunable parameters.
        batches: Inputs.
        drawn_loss: That of the task.
        seed: Of the labels.

    Returns:
        By the name of the weight, in the order of the index. Without what no product uses as a whole: embeddings, bare
        parameters that are added, packed projections of an attention over other inputs, layers that aren't reached.

    Raises:
        DataError: No samples.
        MismatchError: No forward and backward pass reaches any of the layers.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    sums = _Sums({entry.name: entry.units_first(parameters[entry.name]) for entry in index}, parameters)
    generator = torch.Generator().manual_seed(keyed_seed(seed, "labels"))
    with evaluation_mode(model), layer_by_layer(model), full_precision(), torch.enable_grad(), sums.watch():
        for batch in batches:
            # The gradient by the inputs is what makes the first layer's weight meet a gradient.
            inputs, leaves = _differentiable(batch)
            outputs = network_outputs(model, inputs)
            loss = drawn_loss(outputs, generator)
            sums.samples += len(outputs)
            leaves += [p for p in parameters.values() if p.requires_grad]
            torch.autograd.grad(loss, leaves, allow_unused=True)
    return sums.statistics()


class _Sums:
    """What is summed up for each layer while a network runs forward and backward."""

    def __init__(self, weights: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor]) -> None:
        self.samples = 0
        self._weights = weights
        self._names = {(parameter.data_ptr(), parameter.numel()): name for name, parameter in parameters.items()}
        self._biases: dict[str, str | None] = {}
        self._moments: dict[str, Moments] = {}
        self._squares: dict[str, torch.Tensor] = {}
        self._rows: dict[str, int] = dict.fromkeys(weights, 0)
        self._how: dict[str, Convolution | None] = {}

    def watch(self) -> WeightUses:
        """Sum up while this is entered."""
        return WeightUses(self._weights, self._inputs, self._gradient)

    def _inputs(self, call: LayerCall, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        weight = self._weights[call.name]
        if call.name not in self._moments:
            self._how[call.name] = call.convolution
            inputs = weight_rows(weight, call.groups, transposed=call.transposed).shape[2]
            free = call.bias is not None
            self._moments[call.name] = Moments(call.groups, inputs, 0, free_bias=free, device=weight.device)
        bias = None if call.bias is None else self._names.get((call.bias.data_ptr(), call.bias.numel()), "")
        known = self._biases.setdefault(call.name, bias)
        if known is not None and bias != known:
            self._biases[call.name] = ""
        for samples in sample_slices(call, weight):
            u = input_rows(call, weight, samples)
            self._moments[call.name].add(u, u[..., :0])
        return compute()

    def _gradient(self, name: str, gradient: torch.Tensor) -> None:
        rows = output_rows(gradient, self._how[name], slice(None))
        self._squares[name] = self._squares.get(name, 0) + rows.square().sum(1, dtype=torch.float64)
        self._rows[name] += rows.shape[1]

    def statistics(self) -> dict[str, LayerStatistics]:
        if not self.samples:
            raise DataError("samples to measure layers on", expected="at least one batch", found="none")
        seen = {name: self._moments[name] for name in self._weights if name in self._squares}
        if not seen:
            raise MismatchError(
                f"layer {next(iter(self._weights))}",
                expected="to be reached in a forward and backward pass",
                found="that nothing multiplies by it, nor by any other",
                remedy="do without statistics of the layers, that is choose another criterion",
            )
        return {
            name: LayerStatistics(
                moments.second_moment() / self.samples,
                moments.squared_inputs() / self.samples,
                self._squares[name] / self._rows[name],
                moments.means()[0],
                moments.rows / self.samples,
                self._biases[name],
            )
            for name, moments in seen.items()
        }


def _differentiable(inputs: Inputs) -> tuple[Inputs, list[torch.Tensor]]:
    """The same inputs, and those of their tensors by which one can differentiate."""
    parts = [part.detach().requires_grad_() if part.is_floating_point() else part for part in parts_of(inputs)]
    return arranged_as(inputs, parts), [part for part in parts if part.requires_grad]


_VECTORS = ("squares", "gradients", "means")


def pack(statistics: Mapping[str, LayerStatistics]) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The statistics of all layers as few arrays, to be stored.

    G is symmetric, up to rounding: of each group its upper triangle is kept, row by row, as float32. That changes an
    entry by at most 2⁻²⁴ of itself, where a moment is exact to 1e-6 of the product of two deviations, and takes a
    quarter of the bytes.

    Returns:
        ``inputs`` (Σ groups·inputs·(inputs+1)/2,) float32; ``squares``, ``means`` and ``gradients``, 1-dimensional
        float64; each has the layers one after the other. Then for each layer ``name``, ``groups``, ``inputs`` and
        ``outputs`` per group, ``positions`` and ``bias``; JSON-ready.
    """
    layers, triangles = [], []
    for name, found in statistics.items():
        groups, inputs = found.squares.shape
        sizes = {"groups": groups, "inputs": inputs, "outputs": found.gradients.shape[1]}
        layers.append({"name": name, **sizes, "positions": found.positions, "bias": found.bias})
        rows = [found.inputs[:, row, row:].float().cpu() for row in range(inputs)]
        triangles.append(torch.cat(rows, dim=1).flatten().numpy())
    arrays = {"inputs": np.concatenate(triangles)}
    for vector in _VECTORS:
        values = [getattr(found, vector).cpu().flatten().numpy() for found in statistics.values()]
        arrays[vector] = np.concatenate(values)
    return arrays, layers


def packed_bytes(statistics: Mapping[str, LayerStatistics]) -> int:
    """Bytes of what :func:`pack` makes."""
    size = 0
    for found in statistics.values():
        groups, inputs = found.squares.shape
        size += 4 * groups * (inputs * (inputs + 1) // 2) + 8 * (2 * found.squares.numel() + found.gradients.numel())
    return size


class PackedStatistics(Mapping[str, LayerStatistics]):
    """What :func:`pack` made; a layer is unpacked on access, so that one G at a time is in memory as float64.

    Args:
        arrays: The arrays.
        layers: The description of the layers.
        index: The prunable parameters of the network.
        source: Where both come from, for the error message.

    Raises:
        CorruptError: They aren't the statistics of these parameters.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], layers: Any, index: ParameterIndex, source: str) -> None:
        try:
            self._arrays = {name: arrays[name] for name in ("inputs", *_VECTORS)}
            self._layers: dict[str, tuple[dict[str, Any], dict[str, slice]]] = {}
            ends = dict.fromkeys(self._arrays, 0)
            entries = {entry.name: entry for entry in index}
            for layer in layers:
                entry = entries.pop(layer["name"])
                groups, inputs, outputs = sizes = [layer[size] for size in ("groups", "inputs", "outputs")]
                known = isinstance(layer["bias"], str | None) and type(layer["positions"]) is float
                if not known or not all(type(size) is int and size > 0 for size in sizes):
                    raise ValueError(f"{layer}")
                if (layer["name"], groups * inputs * outputs) != (entry.name, entry.size):
                    raise ValueError(f"{layer}")
                lengths = {"inputs": groups * (inputs * (inputs + 1) // 2), "gradients": groups * outputs}
                parts = {}
                for name, start in ends.items():
                    ends[name] = start + lengths.get(name, groups * inputs)
                    parts[name] = slice(start, ends[name])
                self._layers[entry.name] = layer, parts
            if {name: len(values) for name, values in self._arrays.items()} != ends:
                raise ValueError("arrays of other lengths")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptError(source, expected="statistics of the store's layers", found=f"{error}"[:100]) from error

    def __getitem__(self, name: str) -> LayerStatistics:
        layer, parts = self._layers[name]
        groups, inputs = layer["groups"], layer["inputs"]
        values = {key: torch.from_numpy(self._arrays[key][part]).view(groups, -1) for key, part in parts.items()}
        gram = torch.zeros(groups, inputs, inputs, dtype=torch.float64)
        start = 0
        for row in range(inputs):
            stop = start + inputs - row
            gram[:, row, row:] = gram[:, row:, row] = values["inputs"][:, start:stop].double()
            start = stop
        squares, gradients, means = (values[key] for key in _VECTORS)
        return LayerStatistics(gram, squares, gradients, means, layer["positions"], layer["bias"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)
