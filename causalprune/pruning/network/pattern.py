"""N:M masks: of each M consecutive weights of a unit, the N with the highest scores stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import UsageError
from causalprune.base.options import require
from causalprune.base.units import listed
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.criterion import Scores
from causalprune.pruning.names import DEFAULT_SCOPE, check_pattern
from causalprune.pruning.selection import Selection, checked_scores, free_tensors, selection_of


@dataclass(frozen=True)
class Pattern:
    """At most N of each M weights stay.

    Attributes:
        kept: N.
        of: M.
    """

    kept: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``N:M``.

        Raises:
            UsageError: It isn't two whole numbers with 0 < N < M.
        """
        require("`pattern`", text, check_pattern)
        kept, of = map(int, text.split(":"))
        return cls(kept, of)

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"

    @property
    def sparsity(self) -> float:
        """1 − N/M."""
        return 1 - self.kept / self.of

    def at(self, sparsity: float) -> Pattern:
        """The pattern of the same M that comes nearest to a lower sparsity; M:M keeps everything."""
        return Pattern(max(self.kept, round(self.of * (1 - sparsity))), self.of)

    def require_rows(self, index: ParameterIndex, left_alone: Collection[str] = ()) -> None:
        """Check that the weights of each unit can be divided into groups of M.

        Args:
            index: The prunable parameters.
            left_alone: Names of tensors that aren't pruned.

        Raises:
            UsageError: They can't.
        """
        odd = [e for e in index if e.name not in left_alone and (e.size // e.num_units) % self.of]
        if odd:
            raise UsageError(
                f"`pattern={self}`",
                expected=f"a multiple of {self.of} weights in each filter or neuron of every layer",
                found=listed([f"{e.size // e.num_units} in {e.name}" for e in odd]),
                remedy="name such layers to `keep`, which leaves them dense",
            )


def require_alone(
    pattern: str | None, sparsity: float | None, scope: str, granularity: str, layer_sparsity: Mapping[str, float]
) -> None:
    """Refuse what contradicts a pattern, which says by itself how much of which weights is pruned.

    Raises:
        UsageError: Another value than the default.
    """
    if pattern is None:
        return
    given = {
        "sparsity": None if sparsity is None else f"{sparsity:g}",
        "scope": None if scope == DEFAULT_SCOPE else scope,
        "granularity": None if granularity == "parameter" else granularity,
        "layer_sparsity": f"{dict(layer_sparsity)}" if layer_sparsity else None,
    }
    for name, value in given.items():
        if value is not None:
            raise UsageError(
                f"`{name}`",
                expected=f"none beside `pattern={pattern}`, which says how many weights of each group stay",
                found=value,
                remedy="leave one of them out",
            )


def select_pattern(scores: Scores, mask: Mask, pattern: Pattern, *, frozen: Collection[str] = ()) -> Selection:
    """Of each M consecutive weights of a filter or neuron, keep at most the N with the highest scores.

    Consecutive along the inputs of a unit, as ``torch.sparse.to_sparse_semi_structured`` takes them: in the rows of
    a Linear weight (out, in), in those of ``weight.flatten(1)`` of a convolution (out, in, …), and in the columns of
    GPT-2's Conv1D (in, out), which are the rows of what it computes as a linear layer.

    Weights that were pruned before stay pruned and count, so a group of which N or fewer are left stays as it is.
    Among equal scores, the lower index is pruned first. A group never loses all that it has, and so no layer does.

    Args:
        scores: Finite wherever the mask keeps.
        mask: The mask so far.
        pattern: N and M.
        frozen: Names of tensors that aren't pruned.

    Raises:
        UsageError: A layer's units don't divide into groups of M.
        MismatchError: The number of scores isn't that of the prunable parameters.
        DataError: Scores that aren't finite; everything is pruned already, or frozen.
    """
    free, _ = free_tensors(mask.index, None, frozen)
    pattern.require_rows(mask.index, frozen)
    kept = checked_scores(scores, mask, free)
    pruned = np.zeros(mask.index.total, dtype=bool)
    target = 0
    for entry in (mask.index.entries[number] for number in free):
        groups = groups_of(entry, pattern.of)
        pruned[_lowest(scores.keys, kept, groups, pattern.of - pattern.kept)] = True
        target += len(groups) * (pattern.of - pattern.kept)
    return selection_of(mask, free, pruned & kept, target, [])


def groups_of(entry: ParameterEntry, size: int) -> npt.NDArray[np.int64]:
    """(groups, size) positions in the flat vector of a tensor's groups of consecutive weights of a unit."""
    positions = np.arange(entry.offset, entry.stop).reshape(entry.shape)
    return np.moveaxis(positions, entry.filter_axis, 0).reshape(-1, size)


def _lowest(
    keys: Sequence[npt.NDArray[np.floating]], kept: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """The positions of the lowest of each group, those that aren't kept first."""
    inside = kept[groups]
    values = [np.where(inside, key[groups], 0) for key in keys]
    # Stable: among equal ones the first.
    order = np.lexsort((*reversed(values), inside), axis=-1)
    return np.take_along_axis(groups, order[:, :count], axis=-1).reshape(-1)
