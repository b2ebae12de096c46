"""What a forward pass depends on besides weights and inputs: saved, so that it can be repeated without a trace."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from causalprune.models.modes import averaging_layers, frozen_batch_statistics


@dataclass(frozen=True)
class _Generator:
    """A source of random numbers: how to get its state, and how to set it."""

    get: Callable[[], Any]
    set: Callable[[Any], object]

    def stands_at(self, state: Any) -> bool:
        now = self.get()
        if isinstance(now, torch.Tensor):
            return torch.equal(now, state)
        return pickle.dumps(now) == pickle.dumps(state)


class PassState:
    """The state of the generators, the buffers and the modes of a network when a forward pass begins.

    The generators are PyTorch's on the CPU and on the network's devices, those that modules hold as attributes, and,
    if the first pass draws from them, Python's and NumPy's global ones. Batch normalization isn't among the buffers: in
    training it doesn't read its averages, and :meth:`repeated` doesn't write them.

    Args:
        model: The network; modules and buffers that it gets later are not seen.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._averaging = averaging_layers(model)
        averaging = {id(layer) for layer in self._averaging}
        self._buffers = [
            (module, name)
            for module in self._modules
            if id(module) not in averaging
            for name, buffer in module._buffers.items()
            if buffer is not None and not is_expanded(buffer)
        ]
        self._undecided = [
            _Generator(random.getstate, random.setstate),
            _Generator(np.random.get_state, np.random.set_state),
        ]
        self._generators = [*_torch_generators(model), *_own_generators(self._modules), *self._undecided]
        self._modes: list[bool] = []
        self._states: list[tuple[_Generator, Any]] = []
        self._values: list[torch.Tensor] = []

    def save(self) -> None:
        """Note the state; a forward pass is about to begin."""
        self._modes, self._states, self._values = self._current()

    @property
    def same_modes(self) -> bool:
        """Whether every module is in the mode that it was in when the state was saved."""
        return self._modes == [module.training for module in self._modules]

    def drew(self) -> bool:
        """Whether a generator has advanced since the state was saved."""
        self._leave_out_unused()
        return not all(generator.stands_at(state) for generator, state in self._states)

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Let the body begin in the saved state; afterwards everything is as it was before the body."""
        now, tensors = self._current(), [module._buffers[name] for module, name in self._buffers]
        try:
            self._set(self._modes, self._states, self._values, tensors)
            with frozen_batch_statistics(self._averaging):
                yield
            self._leave_out_unused()
        finally:
            self._set(*now, tensors)

    def _current(self) -> tuple[list[bool], list[tuple[_Generator, Any]], list[torch.Tensor]]:
        return (
            [module.training for module in self._modules],
            [(generator, generator.get()) for generator in self._generators],
            [module._buffers[name].clone() for module, name in self._buffers],  # type: ignore[union-attr]
        )

    def _set(
        self,
        modes: list[bool],
        states: list[tuple[_Generator, Any]],
        values: list[torch.Tensor],
        tensors: list[torch.Tensor | None],
    ) -> None:
        for module, mode in zip(self._modules, modes, strict=True):
            module.training = mode
        for generator, state in states:
            generator.set(state)
        with torch.no_grad():
            for (module, name), tensor, value in zip(self._buffers, tensors, values, strict=True):
                # A module may have replaced the tensor itself.
                module._buffers[name] = tensor
                tensor.copy_(value)  # type: ignore[union-attr]

    def _leave_out_unused(self) -> None:
        """After the first pass: leave Python's and NumPy's generators alone, unless it drew from them."""
        for generator, state in self._states:
            if generator in self._undecided and generator.stands_at(state):
                self._generators.remove(generator)
        self._states = [pair for pair in self._states if pair[0] in self._generators]
        self._undecided = []


def is_expanded(buffer: torch.Tensor) -> bool:
    """Whether elements share memory; PyTorch writes into no such tensor, so that it can't change."""
    return any(stride == 0 and size > 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))


def _torch_generators(model: nn.Module) -> Iterator[_Generator]:
    yield _Generator(torch.get_rng_state, torch.set_rng_state)
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if isinstance(model, nn.DataParallel):
        devices |= {torch.device("cuda", number) for number in model.device_ids}
    for device in sorted(devices, key=str):
        if device.type in ("cpu", "meta"):
            continue
        module: Any = torch.get_device_module(device)
        if device.type == "mps":
            yield _Generator(module.get_rng_state, module.set_rng_state)
        else:
            yield _Generator(partial(module.get_rng_state, device), partial(_set_device_state, module, device))


def _set_device_state(module: Any, device: torch.device, state: torch.Tensor) -> None:
    module.set_rng_state(state, device)


def _own_generators(modules: list[nn.Module]) -> Iterator[_Generator]:
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, torch.Generator):
                yield _Generator(value.get_state, value.set_state)
            elif isinstance(value, np.random.Generator):
                yield _Generator(
                    partial(getattr, value.bit_generator, "state"), partial(setattr, value.bit_generator, "state")
                )
            elif isinstance(value, np.random.RandomState):
                yield _Generator(value.get_state, value.set_state)
            elif isinstance(value, random.Random):
                yield _Generator(value.getstate, value.setstate)
