"""The layers that are named: those to keep dense, those with a sparsity of their own, and what else is prunable."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from causalprune.base.errors import UsageError
from causalprune.base.options import fraction, require
from causalprune.base.units import listed
from causalprune.models.parameters import ParameterIndex


@dataclass(frozen=True)
class NamedLayers:
    """The tensors that patterns name.

    Attributes:
        keep: Those that stay dense and don't count, in the order of the index.
        sparsity: The sparsity that each of the others is pruned to after the last iteration, where it has its own.
    """

    keep: list[str]
    sparsity: dict[str, float]

    @classmethod
    def find(
        cls,
        index: ParameterIndex,
        keep: Iterable[str],
        layer_sparsity: Iterable[tuple[str, float]],
        frozen: Collection[str] = (),
    ) -> NamedLayers:
        """Find them in a network.

        Args:
            index: The prunable parameters.
            keep: Patterns of layers that stay dense.
            layer_sparsity: Pattern and sparsity; of several that match a layer the last one holds.
            frozen: Tensors that are left alone anyway.

        Raises:
            UsageError: A pattern that matches nothing, or nothing that may be pruned; a layer of both; nothing left to
                prune.
        """
        matched = {name for pattern in keep for name in index.matching(pattern, "`keep`")}
        kept = [entry.name for entry in index if entry.name in matched]
        sparsity: dict[str, float] = {}
        for pattern, share in layer_sparsity:
            require("`layer_sparsity`", share, fraction)
            names = index.matching(pattern, "`layer_sparsity`")
            free = [name for name in names if name not in frozen]
            if not free:
                raise UsageError(
                    "`layer_sparsity`", expected="a layer that is trained", found=f"{listed(names)}, frozen"
                )
            sparsity |= dict.fromkeys(free, share)
        both = [name for name in kept if name in sparsity]
        if both:
            raise UsageError(
                "`keep` and `layer_sparsity`", expected="one of them for a layer", found=f"both for {listed(both)}"
            )
        if kept and all(entry.name in kept or entry.name in frozen for entry in index):
            raise UsageError("`keep`", expected="a layer to prune beside those it keeps", found="none")
        return cls(kept, sparsity)

    def on_the_way(self, progress: float) -> dict[str, float]:
        """The sparsity of each in an iteration that prunes to ``progress`` of the sparsity of the whole.

        All shares grow by one factor, so whatever can be met at the end can be met in every iteration.
        """
        return {name: value * progress for name, value in self.sparsity.items()}


def require_recorded(recorded: ParameterIndex, wanted: ParameterIndex, source: str) -> None:
    """Check that all that is to be pruned by a recording has columns in it.

    Args:
        recorded: What the recording is of.
        wanted: The same and what else is named.
        source: The store, for the message.

    Raises:
        UsageError: Something hasn't.
    """
    known = {entry.name for entry in recorded}
    more = [entry.name for entry in wanted if entry.name not in known]
    if more:
        raise UsageError(
            "`prune`",
            expected=f"parameters that {source} has recorded, which the criterion reads",
            found=listed(more),
            remedy="record with the same `prune`, or choose a criterion that reads no recording, such as magnitude",
        )
