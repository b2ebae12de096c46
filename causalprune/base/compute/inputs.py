"""What a network is called with, and which of its outputs count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import MismatchError
from causalprune.base.specs import InputShape, Tokens

Inputs = torch.Tensor


def example_inputs(
    shape: InputShape, count: int, *, device: torch.device | str = "cpu", random: bool = False
) -> torch.Tensor:
    """Inputs of ``count`` samples, the same in every call: zeros, or random ones.

    Args:
        shape: Shape of one sample.
        count: Number of samples.
        device: Where to put them; they are drawn on the CPU.
        random: Standard normal, or tokens that are all equally likely.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(shape, Tokens):
        sizes = (count, *shape.shape)
        if random:
            return torch.randint(shape.vocabulary, sizes, generator=generator).to(device)
        return torch.zeros(sizes, dtype=torch.int64, device=device)
    if random:
        return torch.randn(count, *shape, generator=generator).to(device)
    return torch.zeros(count, *shape, device=device)


def shape_of(inputs: Inputs) -> InputShape:
    """The shape of a sample of some inputs (N, …); whole numbers are tokens, of which the largest is among them."""
    shape = tuple(inputs.shape[1:])
    return shape if inputs.is_floating_point() else Tokens(shape, int(inputs.max()) + 1)


def network_outputs(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """Call a network, and return those of its outputs that count, see :func:`logits_of`."""
    return logits_of(model(inputs))


def logits_of(outputs: Any) -> torch.Tensor:
    """The outputs that a task judges: a tensor itself, ``logits`` of a dictionary, the first of a tuple.

    Raises:
        MismatchError: None of these.
    """
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif isinstance(outputs, tuple | list) and outputs:
        found = outputs[0]
    if isinstance(found, torch.Tensor):
        return found
    kind = f"the entries {', '.join(map(str, outputs))}"[:80] if isinstance(outputs, Mapping) else type(found).__name__
    raise MismatchError(
        "outputs of the model",
        expected="a tensor, a tuple that begins with one, or a dictionary with `logits`",
        found=kind,
    )
