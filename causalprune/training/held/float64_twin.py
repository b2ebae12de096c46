"""A network that computes in float64 for a moment, at its weights or near them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

Measure = Callable[[], torch.Tensor]
Measured = Callable[[Measure], float]


class Float64Twin:
    """The network with float64 copies of its weights and buffers, for as long as a loss is measured.

    The modules' own parameters are replaced, not written to: whatever happens, they are as they were. What holds
    on to them, such as hooks of DistributedDataParallel, notices nothing.

    Args:
        model: The network. Called within ``measure``, it gets its inputs in float64, and must return outputs in it.
        recorded: The weights that move, by name.
        measure: Computes the loss.
        measured: Calls what it gets, and returns the value.
    """

    def __init__(
        self,
        model: nn.Module,
        recorded: Mapping[str, nn.Parameter],
        measure: Measure,
        measured: Measured,
    ) -> None:
        self._model, self._recorded = model, recorded
        self._measure, self._measured = measure, measured
        self._own = {id(p): p.detach().double() for p in model.parameters() if p.is_floating_point()}

    def loss(self, delta: dict[str, torch.Tensor], factor: int) -> float:
        """The loss at θ + factor·Δθ."""
        copies = dict(self._own)
        if factor:
            moved = {id(p): torch.add(self._own[id(p)], delta[n], alpha=factor) for n, p in self._recorded.items()}
            copies |= moved

        def measure() -> torch.Tensor:
            with self._replaced(copies):
                return self._measure()

        return self._measured(measure)

    @contextmanager
    def _replaced(self, copies: dict[int, torch.Tensor]) -> Iterator[None]:
        replaced: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        default = torch.get_default_dtype()
        hooks = [
            self._model.register_forward_pre_hook(_widen, with_kwargs=True),
            self._model.register_forward_hook(_require_float64),
        ]
        try:
            # For tensors that the network makes.
            torch.set_default_dtype(torch.float64)
            for module in self._model.modules():
                owners: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
                for owner in owners:
                    for name, tensor in owner.items():
                        if tensor is not None and tensor.is_floating_point():
                            if id(tensor) not in copies:
                                copies[id(tensor)] = tensor.detach().double()
                            replaced.append((owner, name, tensor))
                            owner[name] = copies[id(tensor)]
            yield
        finally:
            for owner, name, tensor in replaced:
                owner[name] = tensor
            torch.set_default_dtype(default)
            for hook in hooks:
                hook.remove()


def _widen(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    return _map(torch.Tensor.double, arguments), _map(torch.Tensor.double, named)


def _require_float64(_: nn.Module, __: tuple[Any, ...], outputs: Any) -> None:
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.dtype != torch.float64:
            raise TypeError(f"its outputs are {leaf.dtype}".replace("torch.", ""))


def _map(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Apply a function to the floating-point tensors within tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return function(value) if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(_map(function, item) for item in value)
    if type(value) is dict:
        return {key: _map(function, item) for key, item in value.items()}
    return value


@contextmanager
def computed_kept(model: nn.Module) -> Iterator[None]:
    """Put back what modules compute of their weights and hold: under pruning or spectral normalization, in an LSTM.

    These are tensors, and lists of them, among the attributes of a module, until the next pass computes them anew.
    """
    tensors: list[tuple[nn.Module, str, Any]] = []
    lists: list[tuple[list[Any], list[Any]]] = []
    for module in model.modules():
        tensors += [(module, *item) for item in vars(module).items() if isinstance(item[1], torch.Tensor | list)]
        lists += [(value, list(value)) for value in vars(module).values() if isinstance(value, list)]
    try:
        yield
    finally:
        for module, name, value in tensors:
            vars(module)[name] = value
        for value, items in lists:
            value[:] = items
