"""Second moments of each layer's inputs and output gradients: what the cost of a weight within its layer depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from causalprune.base.compute.inputs import logits_of
from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError, MismatchError
from causalprune.models.modes import evaluation_mode
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.layer_calls import Convolution, Inputs, LayerCall, WeightUses, forward, plain_attention
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
    """

    inputs: torch.Tensor
    squares: torch.Tensor
    gradients: torch.Tensor

    def cpu(self) -> LayerStatistics:
        """The same on the CPU."""
        return LayerStatistics(self.inputs.cpu(), self.squares.cpu(), self.gradients.cpu())


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
        By the name of the weight.

    Raises:
        DataError: No samples.
        MismatchError: A layer that no forward pass reaches.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    sums = _Sums({entry.name: parameters[entry.name] for entry in index})
    generator = torch.Generator().manual_seed(keyed_seed(seed, "labels"))
    with evaluation_mode(model), plain_attention(), torch.enable_grad(), sums.watch():
        for batch in batches:
            # The gradient by the inputs is what makes the first layer's weight meet a gradient.
            inputs, leaves = _differentiable(batch)
            outputs = logits_of(forward(model, inputs))
            loss = drawn_loss(outputs, generator)
            sums.samples += len(outputs)
            leaves += [p for p in parameters.values() if p.requires_grad]
            torch.autograd.grad(loss, leaves, allow_unused=True)
    return sums.statistics()


class _Sums:
    """What is summed up for each layer while a network runs forward and backward."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.samples = 0
        self._weights = weights
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
        for name in self._weights:
            if name not in self._squares:
                raise MismatchError(
                    f"layer {name}",
                    expected="to be reached in a forward and backward pass",
                    found="that nothing multiplies by it",
                    remedy="choose another criterion",
                )
        return {
            name: LayerStatistics(
                moments.second_moment() / self.samples,
                moments.squared_inputs() / self.samples,
                self._squares[name] / self._rows[name],
            )
            for name, moments in self._moments.items()
        }


def _differentiable(inputs: Inputs) -> tuple[Inputs, list[torch.Tensor]]:
    """The same inputs, and those of their tensors by which one can differentiate."""
    leaves: list[torch.Tensor] = []

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        leaves.append(tensor.detach().requires_grad_())
        return leaves[-1]

    if isinstance(inputs, torch.Tensor):
        return copy(inputs), leaves
    if isinstance(inputs, Mapping):
        return {name: copy(tensor) for name, tensor in inputs.items()}, leaves
    return [copy(tensor) for tensor in inputs], leaves
