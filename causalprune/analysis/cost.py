"""The cost of a network: parameters, floating-point operations, bytes, and measured time and memory."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from causalprune.analysis.forward_pass import LATENCY_BATCHES, latency, peak_memory
from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.models.export.formats import to_csr
from causalprune.models.modes import evaluation_mode
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.compact import compact_model


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one forward pass of one sample; a multiply-add counts as two.

    Attributes:
        dense: As PyTorch computes it.
        theoretical: If every pruned weight of a Linear or Conv layer were skipped.
    """

    dense: int
    theoretical: int


def parameter_counts(model: nn.Module, keep: Mapping[str, torch.Tensor] | None = None) -> tuple[int, int]:
    """Count all parameters, including biases and normalization; a tied weight counts once.

    Args:
        model: The network.
        keep: Bool tensors by parameter name, True for unpruned; None for a dense network.

    Returns:
        The number of all parameters and of the unpruned ones.
    """
    total = sum(p.numel() for p in model.parameters())
    return total, total - sum(int((~mask).sum()) for mask in (keep or {}).values())


def flops(model: nn.Module, input_shape: tuple[int, ...], keep: Mapping[str, torch.Tensor] | None = None) -> Flops:
    """Count the operations for one sample with PyTorch's FlopCounterMode; the model stays as it is.

    A Linear or Conv layer uses all its weights equally often, so its operations are proportional to its density.

    Args:
        model: The network.
        input_shape: Shape of one sample.
        keep: Bool tensors by parameter name, True for unpruned; None for a dense network.
    """
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    with evaluation_mode(model), torch.no_grad(), counter:
        model(torch.zeros(1, *input_shape, device=device))
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(model).__name__
    dense = by_module.get("Global", 0)
    saved = 0.0
    # Several modules may share a tied weight, and a shared module has several names.
    owners = [(n, m) for n, m in model.named_modules(remove_duplicate=False) if hasattr(m, "weight")]
    for name, mask in (keep or {}).items():
        weight = model.get_parameter(name)
        names = [f"{root}.{n}" if n else root for n, m in owners if m.weight is weight]
        operations = sum(by_module.get(n, 0) for n in names)
        saved += operations * int((~mask).sum()) / mask.numel()
    return Flops(dense, round(dense - saved))


def stored_bytes(weights: Mapping[str, torch.Tensor], keep: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Bytes of a state dict's tensors, dense and in the export format ``csr``, without the header of the file.

    Returns:
        ``bytes_dense`` and ``bytes_csr``.
    """
    dense = {name: tensor.cpu() for name, tensor in weights.items()}
    return {
        "bytes_dense": sum(t.nbytes for t in dense.values()),
        "bytes_csr": sum(t.nbytes for t in to_csr(dense, keep).values()),
    }


def measure_cost(
    model: nn.Module, index: ParameterIndex, keep: Mapping[str, torch.Tensor], input_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Measure a network, and its compact version if it has one.

    Args:
        model: The network with its pruned weights at zero; it stays as it is.
        index: Its prunable parameters.
        keep: Bool tensors by parameter name, True for unpruned.
        input_shape: Shape of one sample.

    Returns:
        ``device`` and ``threads``; ``latency``, seconds per forward pass, and ``peak_memory``, bytes of weights and
        live tensors, both by batch size and then for ``dense`` (computing with the zeros) and ``compact`` (None if no
        filter or neuron can be removed); ``bytes_deflate``, the dense tensors compressed by zlib at level 6; and
        ``no_compact``, the reason if there is no compact network, else None.
    """
    compact, reason = None, None
    try:
        compact = compact_model(model, index, keep, input_shape).model
    except (DataError, MismatchError, UsageError) as error:
        reason = str(error)
    models = [model] if compact is None else [model, compact]

    def named(values: Sequence[float]) -> dict[str, float | None]:
        return {"dense": values[0], "compact": values[1] if len(values) > 1 else None}

    return {
        "device": str(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "latency": {str(size): named(latency(models, input_shape, size)) for size in LATENCY_BATCHES},
        "peak_memory": {
            str(size): named([peak_memory(m, input_shape, size) for m in models]) for size in LATENCY_BATCHES
        },
        "bytes_deflate": sum(len(zlib.compress(t.cpu().numpy().tobytes(), 6)) for t in model.state_dict().values()),
        "no_compact": reason,
    }
