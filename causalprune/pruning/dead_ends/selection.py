"""A selection that prunes dead ends before all other weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from causalprune.models.mask import Mask
from causalprune.pruning.criterion import Scores
from causalprune.pruning.dead_ends.finder import DeadEnds
from causalprune.pruning.selection import Selection

Bools = npt.NDArray[np.bool_]

_STEP = 0.8
"""On the way to a sparsity with dead ends, each step keeps this part of the weights that the one before it kept."""

_ROUNDS = 20
"""How often the dead ends of a step are replaced, because replacing some can make others."""


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
        more = dead | (found & _exchanged(selection.mask, is_cut=is_cut))
        if np.array_equal(more, dead):
            # In layers that are left alone, which no other selection changes.
            break
        dead = more
    return plain if is_cut else selection


def _exchanged(mask: Mask, *, is_cut: bool) -> Bools:
    """(P,) bool: where to exchange dead ends: anywhere, or in the narrowest layer if nothing reaches an output."""
    chosen = np.ones(mask.index.total, dtype=bool)
    if is_cut:
        entry = mask.index[min(mask.per_layer(), key=lambda layer: layer.kept).name]
        chosen[: entry.offset] = chosen[entry.stop :] = False
        chosen &= mask.numpy()
    return chosen
