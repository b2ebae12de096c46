"""What a network costs: parameters and floating-point operations, dense and with the pruned weights skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from causalprune.models.modes import evaluation_mode
from causalprune.parameters import ParameterIndex


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters; a tied weight counts once.

    Attributes:
        total: All parameters, biases and normalisation included.
        prunable: Weights of Linear and Conv layers.
        total_nonzero: ``total`` less the pruned ones.
        prunable_nonzero: ``prunable`` less the pruned ones.
    """

    total: int
    prunable: int
    total_nonzero: int
    prunable_nonzero: int


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one forward pass of one sample; a multiply-add counts as two.

    Attributes:
        dense: As PyTorch computes it.
        theoretical: Were every pruned weight of a Linear or Conv layer skipped.
    """

    dense: int
    theoretical: int


def parameter_counts(
    model: nn.Module, index: ParameterIndex, keep: Mapping[str, torch.Tensor] | None = None
) -> ParameterCounts:
    """Count parameters.

    Args:
        model: The network.
        index: Its prunable parameters.
        keep: Bool tensors by parameter name, True for unpruned; None for a dense network.
    """
    total = sum(p.numel() for p in model.parameters())
    pruned = sum(int((~mask).sum()) for mask in (keep or {}).values())
    return ParameterCounts(total, index.total, total - pruned, index.total - pruned)


def flops(model: nn.Module, input_shape: tuple[int, ...], keep: Mapping[str, torch.Tensor] | None = None) -> Flops:
    """Count the operations of one sample with PyTorch's own counter; the model is left as it was.

    In a Linear or Conv layer every weight is used equally often, so the layer's operations shrink with its density.

    Args:
        model: The network.
        input_shape: Shape of one sample.
        keep: Bool tensors by parameter name, True for unpruned.
    """
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    with evaluation_mode(model), torch.no_grad(), counter:
        model(torch.zeros(1, *input_shape, device=device))
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(model).__name__
    dense = by_module.get("Global", 0)
    saved = 0.0
    # A tied weight works in several modules, and a shared module has several names.
    owners = [(n, m) for n, m in model.named_modules(remove_duplicate=False) if hasattr(m, "weight")]
    for name, mask in (keep or {}).items():
        weight = model.get_parameter(name)
        names = [f"{root}.{n}" if n else root for n, m in owners if m.weight is weight]
        operations = sum(by_module.get(n, 0) for n in names)
        saved += operations * int((~mask).sum()) / mask.numel()
    return Flops(dense, round(dense - saved))
