"""Two copies of a network that show which of its weights reach an output under a mask: by random weights, and its own.

The random one knows the paths, whatever the weights are at the moment. Its own weights know what the random ones can't:
which way a maximum or a router takes, and what a bias multiplies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from causalprune.base.compute.inputs import Inputs, mapped, network_outputs
from causalprune.models.modes import reset_batchnorm
from causalprune.models.parameters import ParameterIndex
from causalprune.models.prunable import kinds_of_parameters
from causalprune.models.wrappers import named_parameters, plain_copy
from causalprune.pruning.layer_calls import LayerCall, WeightUses, layer_by_layer

Bools = npt.NDArray[np.bool_]


class _Twin:
    """A copy of a network, on the CPU, whose weights are set anew for each mask."""

    def __init__(self, model: nn.Module, index: ParameterIndex) -> None:
        self.model = plain_copy(model).cpu()
        self.index = index
        self.parameters = named_parameters(self.model)
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)

    def set_weights(self, values: Mapping[str, torch.Tensor], keep: Mapping[str, torch.Tensor]) -> None:
        """Set the prunable weights to some values where a mask keeps them, and to 0 elsewhere."""
        for entry in self.index:
            weight = self.parameters[entry.name].requires_grad_(False)
            weight.copy_(values[entry.name] * keep[entry.name]).requires_grad_()

    def moving(self, inputs: Inputs, within: AbstractContextManager[Any] | None = None) -> Bools:
        """(P,) bool: the weights by which a weighted sum of the outputs that count has a derivative other than 0."""
        weights = [self.parameters[entry.name] for entry in self.index]
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), within or nullcontext():
            outputs = network_outputs(self.model, inputs)
            found = torch.autograd.grad((outputs * _different_numbers(outputs)).sum(), weights, allow_unused=True)
        return np.concatenate(
            [
                np.zeros(entry.size, dtype=bool) if gradient is None else (gradient != 0).flatten().numpy()
                for entry, gradient in zip(self.index, found, strict=True)
            ]
        )


class RandomTwin:
    """Random weights where a mask keeps, no biases, normalization without effect, means for maxima, random inputs.

    Args:
        model: The network; it isn't changed.
        index: Its prunable parameters.
        samples: Inputs; whole numbers and bools are taken as they are, of floats only the shape counts.
        signed: Whether the numbers have both signs, or are positive, so that no rectifier hides a path.
    """

    def __init__(self, model: nn.Module, index: ParameterIndex, samples: Inputs, *, signed: bool) -> None:
        self._twin, self._signed = _Twin(model, index), signed
        self._generator = torch.Generator().manual_seed(0)
        reset_batchnorm(self._twin.model)
        weights = {entry.name for entry in index}
        self._values: dict[str, torch.Tensor] = {}
        for name, (kind, parameter) in kinds_of_parameters(self._twin.model).items():
            if name in weights:
                self._values[name] = self._random(parameter)
            elif "bias" in name.rpartition(".")[2]:
                parameter.zero_()
            elif kind == "normalization tensor":
                parameter.fill_(1)
            elif parameter.is_floating_point():
                parameter.copy_(self._random(parameter))
        # Small, so that no unit with an upper bound, as of ReLU6, reaches it.
        self._inputs = mapped(lambda part: 0.1 * self._random(part) if part.is_floating_point() else part, samples)

    def reaching(self, keep: Mapping[str, torch.Tensor]) -> Bools:
        """(P,) bool: the weights by which an output has a derivative other than 0; of pruned ones, if they were kept.

        Args:
            keep: Bools by the name of the weight.
        """
        # Divided by about as many as are summed, so that the numbers stay of one size however many are pruned.
        fan_in = {e.name: max(1, int(keep[e.name].sum()) // e.num_units) for e in self._twin.index}
        self._twin.set_weights(
            {name: value / fan_in[name] for name, value in self._values.items() if name in fan_in}, keep
        )
        return self._twin.moving(self._inputs, _MeansForMaxima())

    def _random(self, like: torch.Tensor) -> torch.Tensor:
        """From 0.5 to 1.5, or with either sign."""
        drawn = 0.5 + torch.rand(like.shape, generator=self._generator)
        if self._signed:
            drawn *= torch.randn(like.shape, generator=self._generator).sign()
        return drawn.to(like.dtype)


class OwnTwin:
    """The network's own weights where a mask keeps, on samples.

    Args:
        model: The network; it isn't changed.
        index: Its prunable parameters.
        samples: Inputs.
    """

    def __init__(self, model: nn.Module, index: ParameterIndex, samples: Inputs) -> None:
        self._twin, self._samples = _Twin(model, index), samples
        self._values = {entry.name: self._twin.parameters[entry.name].clone() for entry in index}

    def idle(self, keep: Mapping[str, torch.Tensor]) -> Bools:
        """(P,) bool: the weights that change no output, or that feed their unit a constant which its bias can be.

        Args:
            keep: Bools by the name of the weight.
        """
        self._twin.set_weights(self._values, keep)
        ranges = _InputRanges({e.name: e.units_first(self._twin.parameters[e.name]) for e in self._twin.index})
        with layer_by_layer(self._twin.model):
            moving = self._twin.moving(self._samples, WeightUses(ranges.weights, ranges.visit))
        constant = [
            entry.units_first(ranges.constant(entry.name).expand_as(ranges.weights[entry.name])).flatten().numpy()
            for entry in self._twin.index
        ]
        idle: Bools = ~moving | np.concatenate(constant)
        return idle


class _InputRanges:
    """The range of what each weight is multiplied by, over all samples, positions and uses.

    Attributes:
        weights: Each weight with its units first, by name.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.weights = weights
        self._ranges: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def visit(self, call: LayerCall, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        inputs, weight = call.inputs.detach(), self.weights[call.name]
        others = [0, *range(2, inputs.dim())]
        low, high = inputs.amin(others), inputs.amax(others)
        how = call.convolution
        if call.bias is None or (how and (how.transposed or any(how.padding))):
            # Nothing takes a constant over here, but for 0.
            high = torch.where((low == 0) & (high == 0), 0.0, torch.inf)
        ranges = _by_weight(low, weight, call), _by_weight(high, weight, call)
        self._ranges.setdefault(call.name, []).append(ranges)
        return compute()

    def constant(self, name: str) -> torch.Tensor:
        """Whether a weight always multiplies the same number, in a shape that expands to that of the weight."""
        ranges: Sequence[tuple[torch.Tensor, torch.Tensor]] = self._ranges.get(name, ())
        if not ranges:
            return torch.zeros((), dtype=torch.bool)
        low = torch.stack([low for low, _ in ranges]).amin(0)
        return low == torch.stack([high for _, high in ranges]).amax(0)


def _by_weight(values: torch.Tensor, weight: torch.Tensor, call: LayerCall) -> torch.Tensor:
    """Numbers of the input channels of a layer, in the shape of its weight or one that expands to it."""
    if call.transposed:
        return values.reshape(-1, *[1] * (weight.dim() - 1))
    groups = values.reshape(call.groups, 1, -1).expand(-1, len(weight) // call.groups, -1)
    return groups.reshape(len(weight), -1, *[1] * (weight.dim() - 2))


class _MeansForMaxima(TorchFunctionMode):
    """While entered, a maximum over positions or channels is their mean, so that each of them counts."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        name = func.__name__
        if (
            name in _POOLINGS
            and kwargs.get("dilation", 1) in (1, (1, 1), (1, 1, 1))
            and not kwargs.get("return_indices")
        ):
            rest = {key: value for key, value in kwargs.items() if key not in ("dilation", "return_indices")}
            return _POOLINGS[name](*args, **rest)
        if name == "amax":
            return args[0].mean(*args[1:], **kwargs)
        found = func(*args, **kwargs)
        if name in ("max", "maximum") and isinstance(found, torch.Tensor):
            return args[0].mean() if len(args) == 1 and not kwargs else (args[0] + args[1]) / 2
        if name == "max":
            return type(found)((args[0].mean(*args[1:], **kwargs), found.indices))
        return found


_POOLINGS: dict[str, Callable[..., torch.Tensor]] = {
    "max_pool1d": functional.avg_pool1d,
    "max_pool2d": functional.avg_pool2d,
    "max_pool3d": functional.avg_pool3d,
    "adaptive_max_pool1d": functional.adaptive_avg_pool1d,
    "adaptive_max_pool2d": functional.adaptive_avg_pool2d,
    "adaptive_max_pool3d": functional.adaptive_avg_pool3d,
}


def _different_numbers(outputs: torch.Tensor) -> torch.Tensor:
    """A weight for each output, so that a softmax, whose outputs add up to 1, doesn't hide what changes."""
    return torch.linspace(0.5, 1.5, outputs.numel()).reshape(outputs.shape)
