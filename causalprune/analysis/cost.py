"""The cost of a network: parameters, bytes, and measured time and memory."""

from __future__ import annotations

import statistics
import time
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from causalprune.base.compute.inputs import Inputs, divided, example_inputs, forward, parts_of, shape_of
from causalprune.base.compute.shapes import InputShape
from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.models.export.formats import to_csr
from causalprune.models.modes import evaluation_mode, least_batch
from causalprune.models.parameters import ParameterIndex
from causalprune.models.wrappers import plain_copy
from causalprune.pruning.compact import BATCH, compact_model

LATENCY_BATCHES = (1, 64)
"""Batch sizes at which latency and memory are measured."""

_WARM_UP, _FEWEST = 3, 7
"""Calls before the measurement, and least number of measured calls."""


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
    model: nn.Module,
    index: ParameterIndex,
    keep: Mapping[str, torch.Tensor],
    samples: Inputs,
    held_out: Inputs | None = None,
) -> dict[str, Any]:
    """Measure a network, and its compact version if it has one.

    Args:
        model: The network with its pruned weights at zero; it stays as it is.
        index: Its prunable parameters.
        keep: Bool tensors by parameter name, True for unpruned.
        samples: (N, …) normalized inputs; see :func:`causalprune.pruning.compact.compact_model`.
        held_out: (M, …) others.

    Returns:
        ``device`` and ``threads``; ``latency``, seconds per forward pass, and ``peak_memory``, bytes of weights and
        live tensors, both by batch size and then for ``dense`` (computing with the zeros) and ``compact`` (None if no
        filter or neuron can be removed); ``bytes_deflate``, the dense tensors compressed by zlib at level 6; and
        ``no_compact``, the reason if there is no compact network, else None.
    """
    compact, reason = None, None
    parts = [[] if part is None else list(divided(part, BATCH)) for part in (samples, held_out)]
    try:
        compact = compact_model(model, index, keep, *parts).model
    except (DataError, MismatchError, UsageError) as error:
        reason = str(error)
    # Both as their classes compute them, not one of them compiled.
    models = [plain_copy(model), *([] if compact is None else [compact])]
    input_shape = shape_of(samples)
    batches = measured_batches(model)

    def named(values: Sequence[float]) -> dict[str, float | None]:
        return {"dense": values[0], "compact": values[1] if len(values) > 1 else None}

    return {
        "device": str(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "latency": {str(size): named(latency(models, input_shape, size)) for size in batches},
        "peak_memory": {str(size): named([peak_memory(m, input_shape, size) for m in models]) for size in batches},
        "bytes_deflate": sum(len(zlib.compress(t.cpu().numpy().tobytes(), 6)) for t in model.state_dict().values()),
        "no_compact": reason,
    }


def measured_batches(model: nn.Module) -> list[int]:
    """Those of :data:`LATENCY_BATCHES` that the network can take."""
    least = least_batch(model, training=False)
    return [size for size in LATENCY_BATCHES if size >= least]


def latency(
    models: Sequence[nn.Module], input_shape: InputShape, batch_size: int, *, seconds: float = 0.5
) -> list[float]:
    """Median seconds of a forward pass, on the models' device and with PyTorch's current number of threads.

    The models take turns call by call, so that other load on the machine affects all of them alike.

    Args:
        models: The networks to compare; measured in evaluation mode.
        input_shape: Shape of one sample.
        batch_size: Samples per forward pass.
        seconds: How long to measure each model.

    Returns:
        One number per model.
    """
    device = next(models[0].parameters()).device
    inputs = example_inputs(input_shape, batch_size, device=device, random=True)
    samples: list[list[float]] = [[] for _ in models]
    with evaluation_mode(*models):
        for model in models:
            for _ in range(_WARM_UP):
                _timed(model, inputs)
        end = time.perf_counter() + seconds * len(models)
        while time.perf_counter() < end or len(samples[0]) < _FEWEST:
            for model, found in zip(models, samples, strict=True):
                found.append(_timed(model, inputs))
    return [statistics.median(found) for found in samples]


def _timed(model: nn.Module, inputs: Inputs) -> float:
    first = parts_of(inputs)[0]
    with torch.no_grad():
        if first.is_cuda:
            torch.cuda.synchronize(first.device)
        started = time.perf_counter()
        forward(model, inputs)
        if first.is_cuda:
            torch.cuda.synchronize(first.device)
        return time.perf_counter() - started


def peak_memory(model: nn.Module, input_shape: InputShape, batch_size: int) -> int:
    """Peak bytes of weights, inputs and intermediate tensors together during a forward pass.

    Counts live tensors and therefore is the same on all devices; memory that a kernel allocates inside isn't counted.
    """
    device = next(model.parameters()).device
    # The iterators yield a tied weight once.
    weights: int = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    live = _LiveTensors()
    with evaluation_mode(model), torch.no_grad(), live:
        forward(model, example_inputs(input_shape, batch_size, device=device))
    return weights + live.peak


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations allocate, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self._now = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, _types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((arguments, keywords))}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage.data_ptr() in given | self._known:
                continue
            self._known.add(storage.data_ptr())
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._freed, storage.data_ptr(), storage.nbytes())
        return result

    def _freed(self, pointer: int, size: int) -> None:
        self._known.discard(pointer)
        self._now -= size


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
