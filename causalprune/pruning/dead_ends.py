"""Dead ends: kept weights that cause nothing, because every path through them is cut.

A weight whose unit has lost all of its inputs, or all of its outputs, causes nothing that its bias couldn't, whatever
its score was in the whole network. The more is pruned, the more weights are left like that. Vysogorets and Kempe, arXiv
2107.02306, call the sparsity that counts them as pruned the *effective* one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs, mapped, samples_between
from causalprune.base.errors import DataError, translate
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criterion import Scores
from causalprune.pruning.selection import Selection
from causalprune.pruning.twins import OwnTwin, RandomTwin

Bools = npt.NDArray[np.bool_]
T = TypeVar("T")

SAMPLES, FEW = 32, 4
"""Samples that a network is called with, with its own weights and with random ones."""

_STEP = 0.8
"""On the way to a sparsity with dead ends, each step keeps this part of the weights that the one before it kept."""

_ROUNDS = 20
"""How often the dead ends of a step are replaced, because replacing some can make others."""


@dataclass(frozen=True, eq=False)
class DeadEnds:
    """Finds the dead ends that a mask makes in a network, whatever its layers are and however they hang together.

    A weight is a dead end if both of two copies of the network say so:

    1. No path leads from the inputs through it to an output: with random weights where the mask keeps, no biases and
       random inputs, the derivative of every output by it is exactly 0 (:class:`.RandomTwin`).
    2. With the network's own weights, on samples, that derivative is exactly 0 as well; or the weight feeds its unit a
       constant, because no input of the unit before is left, and the unit has a bias that can be it
       (:class:`.OwnTwin`).

    So one that a bias reaches as a factor, or the way of a maximum, isn't one. What reaches no output though nothing is
    pruned can't be told, and is never a dead end: embeddings of other tokens than those of the samples, or weights that
    a parametrization computes with.

    Args:
        model: The network; it isn't changed.
        index: Its prunable parameters.
        inputs: Samples (N, …) of what it is called with.
    """

    model: nn.Module
    index: ParameterIndex
    inputs: Inputs

    def find(self, mask: Mask) -> Bools:
        """(P,) bool: the kept weights that are dead ends.

        Raises:
            DataError: The network fails on random weights or inputs.
        """
        return self.among(mask, self.reaching(mask))

    def among(self, mask: Mask, reaching: Bools) -> Bools:
        """(P,) bool: the kept weights that are dead ends, of those that no path leads through.

        Args:
            mask: The mask.
            reaching: See :meth:`reaching`.
        """
        lost = mask.numpy() & ~reaching
        return lost & self._called(lambda: self._own.idle(mask.tensors())) if lost.any() else lost

    def reaching(self, mask: Mask) -> Bools:
        """(P,) bool: the weights that a path leads through, or would if they were kept, or of which nobody can tell.

        Raises:
            DataError: The network fails on random weights or inputs.
        """
        reaching = self._reaching(mask)
        return reaching if reaching[mask.numpy()].all() else reaching | ~self._told

    def cut(self, mask: Mask, reaching: Bools) -> bool:
        """Whether no path leads to an output under a mask, of those that can be told."""
        return not (mask.numpy() & self._told & reaching).any()

    @cached_property
    def _random(self) -> list[RandomTwin]:
        few = samples_between(self._samples, 0, FEW)
        return [RandomTwin(self.model, self.index, few, signed=signed) for signed in (False, True)]

    @cached_property
    def _own(self) -> OwnTwin:
        return OwnTwin(self.model, self.index, self._samples)

    @property
    def _samples(self) -> Inputs:
        return mapped(lambda part: part.cpu(), samples_between(self.inputs, 0, SAMPLES))

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
        positive, signed = self._called(lambda: [twin.reaching(mask.tensors()) for twin in self._random])
        return positive | signed

    def _called(self, ask: Callable[[], T]) -> T:
        """What a copy of the network says.

        Raises:
            DataError: It fails.
        """
        try:
            # Tensors that are made while inference mode is on have no derivative.
            with torch.inference_mode(mode=False):
                return ask()
        except Exception as error:  # the user's network may fail in any way
            raise translate(error) or DataError(
                "dead ends",
                expected="a network that takes random weights and inputs of the shape of its samples",
                found=f"that it raises {type(error).__name__}: {error}".splitlines()[0][:200],
                remedy="choose `dead_ends=scored`",
            ) from error


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
        found = dead_ends.among(selection.mask, reaching)
        dead = dead | (found & _exchanged(selection.mask, is_cut=dead_ends.cut(selection.mask, reaching)))
    for _ in range(_ROUNDS):
        selection = choose(replace(scores, dead_ends=dead), sparsity)
        reaching = dead_ends.reaching(selection.mask)
        found = dead_ends.among(selection.mask, reaching)
        if not found.any():
            return selection
        is_cut = dead_ends.cut(selection.mask, reaching)
        # What is kept instead must reach an output by what is there already.
        found |= ~reaching & ~selection.mask.numpy()
        dead = dead | (found & _exchanged(selection.mask, is_cut=is_cut))
    return plain if is_cut else selection


def _exchanged(mask: Mask, *, is_cut: bool) -> Bools:
    """(P,) bool: where to exchange dead ends: anywhere, or in the narrowest layer if nothing reaches an output."""
    chosen = np.ones(mask.index.total, dtype=bool)
    if is_cut:
        entry = mask.index[min(mask.per_layer(), key=lambda layer: layer.kept).name]
        chosen[: entry.offset] = chosen[entry.stop :] = False
        chosen &= mask.numpy()
    return chosen
