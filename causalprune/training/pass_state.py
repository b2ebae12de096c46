"""What a forward pass depends on besides weights and inputs, so that it can be repeated, and repeated without a trace."""

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
            if buffer is not None and not _is_expanded(buffer)
        ]
        self._generators = [*_torch_generators(model), *_own_generators(self._modules)]
        self._torch_count = len(self._generators)
        self._generators += [
            _Generator(random.getstate, random.setstate),
            _Generator(np.random.get_state, np.random.set_state),
        ]
        self._modes: list[bool] = []
        self._states: list[Any] = []
        self._values: list[torch.Tensor] = []

    def save(self) -> None:
        """Note the state; a forward pass is about to begin."""
        self._modes = self.modes()
        self._states = [generator.get() for generator in self._generators]
        self._values = [module._buffers[name].clone() for module, name in self._buffers]  # type: ignore[union-attr]

    def modes(self) -> list[bool]:
        """Whether each module is in training mode."""
        return [module.training for module in self._modules]

    @property
    def same_modes(self) -> bool:
        """Whether every module is in the mode that it was in when the state was saved."""
        return self._modes == self.modes()

    @property
    def saved(self) -> bool:
        """Whether there is a saved state."""
        return bool(self._modes)

    def drop(self) -> None:
        """Forget the saved state."""
        self._modes, self._states, self._values = [], [], []

    def drew(self) -> bool:
        """Whether a generator has advanced since the state was saved; the global ones of Python and NumPy don't count."""
        pairs = zip(self._generators[: self._torch_count], self._states, strict=False)
        return not all(generator.stands_at(state) for generator, state in pairs)

    def leave_out_unused(self) -> None:
        """Leave Python's and NumPy's generators alone from now on, unless they have advanced since the state was saved."""
        used = [
            number < self._torch_count or not generator.stands_at(state)
            for number, (generator, state) in enumerate(zip(self._generators, self._states, strict=True))
        ]
        self._generators = [generator for generator, keep in zip(self._generators, used, strict=True) if keep]
        self._states = [state for state, keep in zip(self._states, used, strict=True) if keep]

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Let the body begin in the saved state; afterwards everything is as it was before the body."""
        modes = self.modes()
        states = [generator.get() for generator in self._generators]
        buffers = [module._buffers[name] for module, name in self._buffers]
        now = [buffer.clone() for buffer in buffers]  # type: ignore[union-attr]
        try:
            self._set(self._modes, self._states, buffers, self._values)
            with frozen_batch_statistics(self._averaging):
                yield
        finally:
            self._set(modes, states, buffers, now)

    def _set(
        self, modes: list[bool], states: list[Any], buffers: list[torch.Tensor | None], values: list[torch.Tensor]
    ) -> None:
        if modes != self.modes():
            for module, mode in zip(self._modules, modes, strict=True):
                module.training = mode
        for generator, state in zip(self._generators, states, strict=True):
            generator.set(state)
        with torch.no_grad():
            for (module, name), buffer, value in zip(self._buffers, buffers, values, strict=True):
                # A module may have replaced the tensor itself.
                module._buffers[name] = buffer
                buffer.copy_(value)  # type: ignore[union-attr]


def _is_expanded(buffer: torch.Tensor) -> bool:
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
