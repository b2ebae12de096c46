"""Inputs of a network as a loop has them: a tensor, a DataLoader, any batches of inputs or of (inputs, targets)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs, forward, mapped, parts_of, samples_between, without_targets
from causalprune.base.errors import DataError, UsageError, translate
from causalprune.models.modes import evaluation_mode

BATCH = 500
"""Samples in one forward pass of a tensor that is divided here."""

Samples = torch.Tensor | Iterable[Any]
"""Inputs (N, …), or batches: inputs, or tuples of inputs and targets, which aren't used. The inputs of a batch are a
tensor, a tuple of the network's arguments, or a dictionary of them, in which targets are left out by their names. Of a
flat tuple, a network that needs K arguments gets the first K."""


def batches_of(samples: Samples, count: int, model: nn.Module) -> list[Inputs]:
    """The first samples, in batches, on the device of a network that takes them.

    Args:
        samples: See :data:`Samples`.
        count: How many samples; all if there are fewer.
        model: The network.

    Raises:
        UsageError: Something else, or a count below 1.
        DataError: No samples, or such as the network raises on.
    """
    batches = _read(samples, count, model)
    if not batches:
        raise DataError("`inputs`", expected="at least one sample", found="none")
    try:
        with evaluation_mode(model), torch.no_grad():
            forward(model, batches[0])
    except Exception as error:  # the user's network may fail in any way
        raise translate(error) or DataError(
            "`inputs`",
            expected=f"what {type(model).__name__} takes",
            found=f"that it raises {type(error).__name__}: {error}".splitlines()[0][:200],
        ) from error
    return batches


def _read(samples: Samples, count: int, model: nn.Module) -> list[Inputs]:
    device = next(model.parameters()).device
    if count < 1:
        raise UsageError("`samples`", expected="a whole number of at least 1", found=str(count))
    if isinstance(samples, torch.Tensor):
        starts = range(0, min(count, len(samples)), BATCH)
        return [samples[start : min(start + BATCH, count)].to(device) for start in starts]
    if isinstance(samples, Mapping) or not isinstance(samples, Iterable):
        raise UsageError("`inputs`", expected=_EXPECTED, found=type(samples).__name__)
    found: list[Inputs] = []
    left = count
    for batch in samples:
        inputs = _inputs(batch, model)
        tensors = _tensors(inputs)
        if not tensors:
            raise UsageError("`inputs`", expected=_EXPECTED, found=f"a batch of {_kinds(inputs)}")
        if tensors[0].ndim == 0:
            raise UsageError("`inputs`", expected=_EXPECTED, found="a batch whose first tensor has no axis of samples")
        size = len(tensors[0])
        if size:
            found.append(mapped(lambda part: part.to(device), samples_between(inputs, 0, left)))
        left -= size
        if left <= 0:
            break
    return found


_EXPECTED = "a tensor of inputs (N, …), or batches of inputs or of (inputs, targets), such as a DataLoader; inputs are "
_EXPECTED += "a tensor, or a tuple or dictionary of tensors (torch.from_numpy makes one of an array)"


def _inputs(batch: Any, model: nn.Module) -> Any:
    """The inputs of a batch, without its targets."""
    if isinstance(batch, Mapping):
        return without_targets(batch, model)
    if not isinstance(batch, Sequence) or isinstance(batch, str) or not batch:
        return batch
    arguments = signature(model.forward).parameters.values()
    places = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    needed = sum(argument.kind in places and argument.default is Parameter.empty for argument in arguments)
    flat = all(isinstance(part, torch.Tensor) for part in batch)
    return batch[:needed] if flat and 1 < needed <= len(batch) else batch[0]


def _tensors(inputs: Any) -> list[torch.Tensor]:
    """The tensors of the inputs of one batch; empty if they aren't such."""
    if not isinstance(inputs, torch.Tensor | Mapping | Sequence) or isinstance(inputs, str):
        return []
    found = parts_of(inputs)
    return found if all(isinstance(value, torch.Tensor) for value in found) else []


def _kinds(inputs: Any) -> str:
    """What a batch without tensors is, or which of its parts is no tensor."""
    if isinstance(inputs, Mapping):
        for name, part in inputs.items():
            if not isinstance(part, torch.Tensor):
                return f"{type(inputs).__name__} with {name}, {type(part).__name__}"
    return type(inputs).__name__
