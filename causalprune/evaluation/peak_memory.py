"""The memory of a forward pass at its peak."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from causalprune.models.modes import evaluation_mode


def peak_memory(model: nn.Module, input_shape: tuple[int, ...], batch_size: int) -> int:
    """Largest number of bytes that weights, inputs and intermediate tensors occupy together in a forward pass.

    Counted from the tensors that live, hence the same on any device; what a kernel allocates inside isn't in it.
    """
    device = next(model.parameters()).device
    # A tied weight is one tensor of the iterators.
    weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    with evaluation_mode(model), torch.no_grad(), _LiveTensors() as live:
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
