"""Time and peak memory of a forward pass."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from causalprune.models.modes import evaluation_mode

LATENCY_BATCHES = (1, 64)
"""Batch sizes at which latency and memory are measured."""

_WARM_UP, _FEWEST = 3, 7
"""Calls before the measurement, and least number of measured calls."""


def latency(
    models: Sequence[nn.Module], input_shape: tuple[int, ...], batch_size: int, *, seconds: float = 0.5
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
    inputs = torch.randn(batch_size, *input_shape, device=device)
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


def _timed(model: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        started = time.perf_counter()
        model(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        return time.perf_counter() - started


def peak_memory(model: nn.Module, input_shape: tuple[int, ...], batch_size: int) -> int:
    """Peak bytes of weights, inputs and intermediate tensors together during a forward pass.

    Counts live tensors and therefore is the same on all devices; memory that a kernel allocates inside isn't counted.
    """
    device = next(model.parameters()).device
    # The iterators yield a tied weight once.
    weights: int = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    live = _LiveTensors()
    with evaluation_mode(model), torch.no_grad(), live:
        model(torch.zeros(batch_size, *input_shape, device=device))
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
