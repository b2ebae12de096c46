"""Dead ends: kept weights that can't change any output, because every path through them is cut.

A weight whose unit has lost all of its inputs, or all of its outputs, causes nothing, whatever its score was in the
whole network. The more is pruned, the more weights are left like that. Vysogorets and Kempe, arXiv 2107.02306, call
the sparsity that counts them as pruned the *effective* one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs, forward, mapped, output_tensors, samples_between
from causalprune.base.errors import DataError, translate
from causalprune.models.mask import Mask
from causalprune.models.modes import reset_batchnorm
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.models.prunable import kinds_of_parameters
from causalprune.models.wrappers import named_parameters, plain_copy
from causalprune.pruning.criterion import Scores
from causalprune.pruning.selection import Selection

Bools = npt.NDArray[np.bool_]

SAMPLES = 4
"""Samples that a network is called with to see which weights reach an output."""

_STEP = 0.8
"""On the way to a sparsity with dead ends, each step keeps this part of the weights that the one before it kept."""

_ROUNDS = 20
"""How often the dead ends of a step are replaced, because replacing some can make others."""


@dataclass(frozen=True, eq=False)
class DeadEnds:
    """Finds the dead ends that a mask makes in a network, whatever its layers are and however they hang together.

    A copy of the network gets random weights where the mask keeps, no biases, batch normalization without effect, and
    random inputs. A weight is a dead end if there the derivative of every output by it is exactly 0. The random numbers
    are positive first, so that no rectifier hides a path; then they have both signs, for layers that subtract a mean.

    What reaches no output though nothing is pruned can't be told, and is never a dead end: embeddings of other tokens
    than those of the samples, or weights that a parametrization computes with. Nor is what follows a unit without
    inputs whose output is constant but not 0, such as a sigmoid's ½.

    Args:
        model: The network; it isn't changed.
        index: Its prunable parameters.
        inputs: What it is called with, a few samples (N, …) of each. Whole numbers and bools are taken as they are; of
            floats only the shape counts.
    """

    model: nn.Module
    index: ParameterIndex
    inputs: Inputs

    def find(self, mask: Mask) -> Bools:
        """(P,) bool: the kept weights that are dead ends.

        Raises:
            DataError: The network fails on random weights or inputs.
        """
        return mask.numpy() & ~self.reaching(mask)

    def reaching(self, mask: Mask) -> Bools:
        """(P,) bool: the weights that aren't dead ends, and those pruned ones that wouldn't be if they were kept.

        Raises:
            DataError: The network fails on random weights or inputs.
        """
        reaching = self._reaching(mask)
        return reaching if reaching[mask.numpy()].all() else reaching | ~self._told

    def cut(self, mask: Mask, reaching: Bools) -> bool:
        """Whether nothing reaches an output under a mask, of what can be told."""
        return not (mask.numpy() & self._told & reaching).any()

    @cached_property
    def _trials(self) -> list[_Trial]:
        twin = plain_copy(self.model).cpu()
        reset_batchnorm(twin)
        few = mapped(lambda part: part.cpu(), samples_between(self.inputs, 0, SAMPLES))
        return [_Trial(twin, self.index, few, signed=signed) for signed in (False, True)]

    @cached_property
    def _told(self) -> Bools:
        """(P,) bool: the weights that reach an output while nothing is pruned, and that a layer multiplies by."""
        told = self._reaching(Mask.all(self.index))
        for entry in self.index:
            if entry.name.endswith(("_orig", ".original")):
                told[entry.offset : entry.stop] = False
        return told

    def _reaching(self, mask: Mask) -> Bools:
        """(P,) bool: the weights by which some output has a derivative other than 0."""
        found = np.zeros(self.index.total, dtype=bool)
        try:
            for trial in self._trials:
                for entry, gradient in trial.gradients(mask.tensors()):
                    found[entry.offset : entry.stop] |= (gradient != 0).flatten().numpy()
        except Exception as error:  # the user's network may fail in any way
            raise translate(error) or DataError(
                "dead ends",
                expected="a network that takes random weights and inputs of the shape of its samples",
                found=f"that it raises {type(error).__name__}: {error}".splitlines()[0][:200],
                remedy="choose `dead_ends=scored`",
            ) from error
        return found


class _Trial:
    """Random numbers in the place of the weights and of the inputs of a network, the same in every call.

    Args:
        model: The network, whose parameters are overwritten.
        index: Its prunable parameters.
        samples: Its inputs.
        signed: Whether the numbers have both signs.
    """

    def __init__(self, model: nn.Module, index: ParameterIndex, samples: Inputs, *, signed: bool) -> None:
        self._model, self._index, self._signed = model, index, signed
        self._generator = torch.Generator().manual_seed(0)
        own = {entry.name for entry in index}
        self._values = {
            name: self._value_of(name, "weight" if name in own else kind, parameter)
            for name, (kind, parameter) in kinds_of_parameters(model).items()
        }
        # Small, so that no unit with an upper bound, as of ReLU6, reaches it.
        self._inputs = mapped(lambda part: 0.1 * self._random(part) if part.is_floating_point() else part, samples)

    def gradients(self, keep: Mapping[str, torch.Tensor]) -> Iterator[tuple[ParameterEntry, torch.Tensor]]:
        """The derivative of a weighted sum of the outputs by each weight.

        Args:
            keep: Bools by the name of the weight; the others are 0.
        """
        parameters = named_parameters(self._model)
        for name, parameter in parameters.items():
            parameter.requires_grad_(False).copy_(self._values[name])
        for entry in self._index:
            # About as large as what is summed, however many are pruned.
            fan_in = max(1, int(keep[entry.name].sum()) // entry.num_units)
            parameters[entry.name].mul_(keep[entry.name]).div_(fan_in).requires_grad_()
        with torch.enable_grad():
            outputs = [out for out in output_tensors(forward(self._model, self._inputs)) if out.requires_grad]
            total = torch.stack([(out * _weights(out)).sum() for out in outputs]).sum()
            weights = [parameters[entry.name] for entry in self._index]
            found = torch.autograd.grad(total, weights, allow_unused=True)
        for entry, gradient in zip(self._index, found, strict=True):
            yield entry, torch.zeros(entry.shape) if gradient is None else gradient

    def _value_of(self, name: str, kind: str, parameter: torch.Tensor) -> torch.Tensor:
        if kind != "weight" and "bias" in name.rpartition(".")[2]:
            return torch.zeros_like(parameter)
        if kind == "normalization tensor":
            return torch.ones_like(parameter)
        return self._random(parameter) if parameter.is_floating_point() else parameter.detach().clone()

    def _random(self, like: torch.Tensor) -> torch.Tensor:
        """From 0.5 to 1.5, or with either sign."""
        drawn = 0.5 + torch.rand(like.shape, generator=self._generator)
        if self._signed:
            drawn *= torch.randn(like.shape, generator=self._generator).sign()
        return drawn.to(like.dtype)


def _weights(outputs: torch.Tensor) -> torch.Tensor:
    """Different numbers for all outputs, so that a softmax, whose outputs add up to 1, doesn't hide what changes."""
    return torch.linspace(0.5, 1.5, outputs.numel()).reshape(outputs.shape)


def without_dead_ends(
    choose: Callable[[Scores, float], Selection],
    scores: Scores,
    sparsity: float,
    plain: Selection,
    dead_ends: DeadEnds,
    *,
    in_steps: bool = True,
) -> Selection:
    """Prune dead ends before all other weights, so that what is kept reaches an output.

    If a selection by scores alone has none, it is the result. Otherwise the weights are pruned in steps, each of which
    keeps four fifths of those that are left. The dead ends of each step are put below all other weights, and the last
    is done over until it has none. In steps, because weights that hang together would all go at once otherwise. Where
    nothing reaches an output, the narrowest layer is what cuts the network, and its weights are exchanged first.

    Args:
        choose: Makes a selection of scores, to a sparsity.
        scores: What orders the weights.
        sparsity: S.
        plain: The selection by scores alone.
        dead_ends: Finds them.
        in_steps: Whether ``choose`` can be asked for less than S.

    Returns:
        The selection; the plain one where nothing reaches an output in the end.

    Raises:
        DataError: See :meth:`DeadEnds.find`.
    """
    if not plain.newly_pruned or not dead_ends.find(plain.mask).any():
        return plain
    after = plain.candidates - plain.num_pruned
    before = after + plain.newly_pruned
    steps = max(1, math.ceil(math.log(after / before) / math.log(_STEP))) if in_steps else 1
    dead = np.zeros(plain.mask.index.total, dtype=bool)
    for step in range(1, steps):
        left = before * (after / before) ** (step / steps)
        selection = choose(replace(scores, dead_ends=dead), 1 - left / plain.candidates)
        reaching = dead_ends.reaching(selection.mask)
        found = selection.mask.numpy() & ~reaching
        dead = dead | (found & _exchanged(selection.mask, is_cut=dead_ends.cut(selection.mask, reaching)))
    for _ in range(_ROUNDS):
        selection = choose(replace(scores, dead_ends=dead), sparsity)
        reaching = dead_ends.reaching(selection.mask)
        if reaching[selection.mask.numpy()].all():
            return selection
        # What is kept instead must reach an output by what is there already.
        is_cut = dead_ends.cut(selection.mask, reaching)
        dead = dead | (~reaching & _exchanged(selection.mask, is_cut=is_cut))
    return plain if is_cut else selection


def _exchanged(mask: Mask, *, is_cut: bool) -> Bools:
    """(P,) bool: where to exchange dead ends: anywhere, or in the narrowest layer if nothing reaches an output."""
    chosen = np.ones(mask.index.total, dtype=bool)
    if is_cut:
        entry = mask.index[min(mask.per_layer(), key=lambda layer: layer.kept).name]
        chosen[: entry.offset] = chosen[entry.stop :] = False
        chosen &= mask.numpy()
    return chosen
