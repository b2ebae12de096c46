"""What a forward pass takes: time, and memory at its peak."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer

LATENCY_BATCHES = (1, 64)
"""Batch sizes at which latency is measured."""


def latency(
    models: Sequence[nn.Module], input_shape: tuple[int, ...], batch_size: int, *, seconds: float = 0.3, rounds: int = 3
) -> list[float]:
    """Median seconds of a forward pass, on the device and with the number of threads at hand.

    The models take turns, so that a machine that is busy for a while is so for all of them.

    Args:
        models: The networks to compare; put into evaluation mode.
        input_shape: Shape of one sample.
        batch_size: Samples at once.
        seconds: Shortest time of measuring for each model in each round.
        rounds: Turns; the best median counts.
    """
    best = [float("inf")] * len(models)
    for _ in range(rounds):
        for position, model in enumerate(models):
            model.eval()
            inputs = torch.randn(batch_size, *input_shape, device=next(model.parameters()).device)
            scope = {"model": model, "inputs": inputs, "torch": torch}
            timer = Timer(
                "with torch.no_grad():\n    model(inputs)", globals=scope, num_threads=torch.get_num_threads()
            )
            best[position] = min(best[position], timer.blocked_autorange(min_run_time=seconds / rounds).median)
    return best


def peak_memory(model: nn.Module, input_shape: tuple[int, ...], batch_size: int) -> int:
    """Largest number of bytes that weights, inputs and intermediate tensors occupy together in a forward pass.

    Counted from the tensors that live, hence the same on any device; what a kernel allocates inside isn't in it.
    """
    model.eval()
    device = next(model.parameters()).device
    # A tied weight is one tensor of the iterators.
    weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    with torch.no_grad(), _LiveTensors() as live:
        model(torch.zeros(batch_size, *input_shape, device=device))
    return weights + live.peak


class _LiveTensors(TorchDispatchMode):
    """Counts the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
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
