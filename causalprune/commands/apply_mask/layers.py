"""What the options of a mask ask for, the layers that they name, and whether a network can be pruned so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from causalprune.base.compute.runtime import resolve_device
from causalprune.base.errors import UsageError
from causalprune.base.units import parse_bytes
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.budgets import share_out
from causalprune.pruning.network.named_layers import NamedLayers
from causalprune.pruning.network.pattern import Pattern
from causalprune.pruning.selection import target_sparsity


def named_layers(config: ApplyMaskConfig, index: ParameterIndex, frozen: Collection[str] = ()) -> NamedLayers:
    """The tensors that the options of a mask name; see :meth:`NamedLayers.find`."""
    targets = [(target.pattern, target.sparsity) for target in config.layer_sparsity]
    return NamedLayers.find(index, config.keep, targets, frozen)


def target_of(config: ApplyMaskConfig) -> tuple[float | None, float]:
    """The sparsity of this iteration, None for a pattern or the rule γ = 0; and its part of the final sparsity."""
    if config.sparsity is None:
        return None, 1.0
    target = target_sparsity(config.schedule, config.iteration, config.iterations, config.sparsity)
    return target, target / config.sparsity if config.sparsity else 1.0


def pattern_of(config: ApplyMaskConfig) -> Pattern | None:
    """The pattern of this iteration, None if a sparsity decides: as near to it as groups of M come on the way."""
    if config.pattern is None:
        return None
    last = Pattern.parse(config.pattern)
    return last.at(target_sparsity(config.schedule, config.iteration, config.iterations, last.sparsity))


def choice_options(config: ApplyMaskConfig) -> dict[str, Any]:
    """What :func:`causalprune.pruning.network.choice.choose_weights` takes from the options of a mask as it stands."""
    names = ("scope", "granularity", "ridge", "first_order", "exponent", "seed")
    options = {name: getattr(config, name) for name in names} | {"pattern": pattern_of(config)}
    return options | {"max_bytes": parse_bytes(config.memory), "device": str(resolve_device(config.device))}


def needs_network(config: ApplyMaskConfig) -> bool:
    """Whether :func:`require_budgets` can refuse a network; where it can't, none must be built to find out."""
    named = config.keep or config.layer_sparsity or config.prune or config.pattern
    return bool(named) or config.scope == "uniform" or (config.granularity == "layer" and config.scope != "global")


def require_budgets(
    config: ApplyMaskConfig,
    index: ParameterIndex,
    producers: Sequence[Sequence[int]] | None = None,
    frozen: Collection[str] = (),
) -> None:
    """Check, before anything is trained, that a network has the layers that are named, and can meet the sparsities.

    Args:
        config: The mask.
        index: The prunable parameters of the network.
        producers: What is pruned together, see :func:`causalprune.pruning.selection.select`. Without them, sparsities
            of filters, neurons and channels aren't checked.
        frozen: Names of the weights that aren't trained, and so not pruned.

    Raises:
        UsageError: It can't.
    """
    named = named_layers(config, index, frozen)
    if config.pattern is not None:
        Pattern.parse(config.pattern).require_rows(index, named.keep)
    if config.sparsity is None or (producers is None and config.granularity not in ("parameter", "layer")):
        return
    free = [number for number, entry in enumerate(index) if entry.name not in named.keep and entry.name not in frozen]
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
