"""What a network costs where it runs and where it lies: time, memory, bytes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from causalprune.errors import DataError, MismatchError, UsageError
from causalprune.evaluation.latency import LATENCY_BATCHES, latency
from causalprune.evaluation.peak_memory import peak_memory
from causalprune.export.compact import compact_model
from causalprune.export.formats import to_csr
from causalprune.parameters import ParameterIndex


def stored_bytes(weights: Mapping[str, torch.Tensor], keep: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Bytes of a state dict's tensors, dense and as ``export --format csr`` stores them, without the file's header.

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
    """Measure a network, and the compact one if there is one.

    Args:
        model: The network with its pruned weights at zero; left as it was.
        index: Its prunable parameters.
        keep: Bool tensors by parameter name, True for unpruned.
        input_shape: Shape of one sample.

    Returns:
        ``device``, ``threads``; ``latency``, seconds of a forward pass, and ``peak_memory``, bytes of weights and live
        tensors, each by batch size, then ``dense`` (the zeros computed with) and ``compact`` (None where no filter or
        neuron can be removed); ``bytes_deflate``, the dense tensors compressed by zlib at level 6; ``no_compact``: why
        there is no compact network, or None.
    """
    compact, reason = None, None
    try:
        compact = compact_model(model, index, keep, input_shape).model
    except (DataError, MismatchError, UsageError) as error:
        reason = str(error)
    names = ("dense", "compact")
    models = [model] if compact is None else [model, compact]
    seconds: dict[str, dict[str, float | None]] = {}
    memory: dict[str, dict[str, int | None]] = {}
    for batch_size in LATENCY_BATCHES:
        found = latency(models, input_shape, batch_size)
        peaks = [peak_memory(m, input_shape, batch_size) for m in models]
        seconds[str(batch_size)] = dict.fromkeys(names, None) | dict(zip(names, found, strict=False))
        memory[str(batch_size)] = dict.fromkeys(names, None) | dict(zip(names, peaks, strict=False))
    return {
        "device": str(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "latency": seconds,
        "peak_memory": memory,
        "bytes_deflate": sum(len(zlib.compress(t.cpu().numpy().tobytes(), 6)) for t in model.state_dict().values()),
        "no_compact": reason,
    }
