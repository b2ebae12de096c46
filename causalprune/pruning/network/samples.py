"""Inputs of a network as a loop has them: a tensor, a DataLoader, any batches of inputs or of (inputs, targets)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import DataError, UsageError, translate
from causalprune.models.modes import evaluation_mode
from causalprune.pruning.layer_calls import Inputs, forward

BATCH = 500
"""Samples in one forward pass of a tensor that is divided here."""

Samples = torch.Tensor | Iterable[Any]
"""Inputs (N, …), or batches: inputs, or tuples of inputs and targets, which aren't used. The inputs of a batch are a
tensor, a tuple of the network's arguments, or a dictionary of them."""


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
    batches = _read(samples, count, next(model.parameters()).device)
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


def _read(samples: Samples, count: int, device: torch.device) -> list[Inputs]:
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
        inputs = batch[0] if isinstance(batch, Sequence) and not isinstance(batch, str) and batch else batch
        tensors = _tensors(inputs)
        if not tensors or any(tensor.ndim == 0 for tensor in tensors):
            raise UsageError("`inputs`", expected=_EXPECTED, found=f"a batch of {type(inputs).__name__}")
        size = len(tensors[0])
        found.append(_moved(inputs, min(size, left), size, device))
        left -= size
        if left <= 0:
            break
    return found


_EXPECTED = "a tensor of inputs (N, …), or batches of inputs or of (inputs, targets), such as a DataLoader"


def _tensors(inputs: Any) -> list[torch.Tensor]:
    """The tensors of the inputs of one batch; empty if they aren't such."""
    if isinstance(inputs, torch.Tensor):
        return [inputs]
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    if not isinstance(values, Iterable) or isinstance(values, str):
        return []
    found = list(values)
    return found if all(isinstance(value, torch.Tensor) for value in found) else []


def _moved(inputs: Any, count: int, size: int, device: torch.device) -> Inputs:
    """The first ``count`` samples of a batch; what isn't a value per sample stays whole."""

    def part(tensor: torch.Tensor) -> torch.Tensor:
        return (tensor[:count] if len(tensor) == size else tensor).to(device)

    if isinstance(inputs, torch.Tensor):
        return part(inputs)
    if isinstance(inputs, Mapping):
        return {name: part(tensor) for name, tensor in inputs.items()}
    return [part(tensor) for tensor in inputs]
