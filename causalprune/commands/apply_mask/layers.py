"""The layers that ``apply-mask`` treats by name, and whether a network can be pruned as asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from causalprune.base.errors import UsageError
from causalprune.base.units import listed
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.budgets import share_out


@dataclass(frozen=True)
class NamedLayers:
    """The tensors that the options of a mask name.

    Attributes:
        keep: Those that stay dense and don't count, in the order of the index.
        sparsity: The sparsity that each of the others is pruned to after the last iteration, where it has its own.
    """

    keep: list[str]
    sparsity: dict[str, float]

    @classmethod
    def of(cls, config: ApplyMaskConfig, index: ParameterIndex, frozen: Collection[str] = ()) -> NamedLayers:
        """Find them in a network.

        Args:
            config: ``keep`` and ``layer_sparsity``.
            index: The prunable parameters.
            frozen: Tensors that are left alone anyway.

        Raises:
            UsageError: A pattern that matches nothing, or nothing that may be pruned; a layer of both options; nothing
                left to prune.
        """
        matched = {name for pattern in config.keep for name in index.matching(pattern, "`keep`")}
        keep = [entry.name for entry in index if entry.name in matched]
        sparsity: dict[str, float] = {}
        for target in config.layer_sparsity:
            names = index.matching(target.pattern, "`layer_sparsity`")
            free = [name for name in names if name not in frozen]
            if not free:
                raise UsageError(
                    "`layer_sparsity`", expected="a layer that is trained", found=f"{listed(names)}, frozen"
                )
            sparsity |= dict.fromkeys(free, target.sparsity)
        both = [name for name in keep if name in sparsity]
        if both:
            raise UsageError(
                "`keep` and `layer_sparsity`", expected="one of them for a layer", found=f"both for {listed(both)}"
            )
        if keep and all(entry.name in keep or entry.name in frozen for entry in index):
            raise UsageError("`keep`", expected="a layer to prune beside those it keeps", found="none")
        return cls(keep, sparsity)

    def on_the_way(self, progress: float) -> dict[str, float]:
        """The sparsity of each in an iteration that prunes to ``progress`` of the sparsity of the whole.

        All shares grow by one factor, so whatever can be met at the end can be met in every iteration.
        """
        return {name: value * progress for name, value in self.sparsity.items()}


def needs_network(config: ApplyMaskConfig) -> bool:
    """Whether :func:`require_budgets` can refuse a network; where it can't, none must be built to find out."""
    named = config.keep or config.layer_sparsity
    return bool(named) or config.scope == "uniform" or (config.granularity == "layer" and config.scope != "global")


def require_budgets(
    config: ApplyMaskConfig, index: ParameterIndex, producers: Sequence[Sequence[int]] | None = None
) -> None:
    """Check, before anything is trained, that a network has the layers that are named, and can meet the sparsities.

    Args:
        config: The mask.
        index: The prunable parameters of the network.
        producers: What is pruned together, see :func:`causalprune.pruning.selection.select`. Without them, sparsities
            of filters, neurons and channels aren't checked.

    Raises:
        UsageError: It can't.
    """
    named = NamedLayers.of(config, index)
    if config.sparsity is None or (producers is None and config.granularity not in ("parameter", "layer")):
        return
    free = [number for number, entry in enumerate(index) if entry.name not in named.keep]
    if producers is not None:
        producers = [family for family in producers if all(number in free for number in family)]
        if not producers:
            raise UsageError("`keep`", expected="a layer to prune beside those it keeps", found="none")
    share_out(
        index,
        np.ones(index.total, dtype=bool),
        sparsity=config.sparsity,
        scope=config.scope,
        granularity=config.granularity,
        free=free,
        producers=producers,
        layer_sparsity=named.sparsity,
        theta=np.ones(index.total, dtype=np.float32),
    )
