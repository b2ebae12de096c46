"""Multilayer perceptrons for tables or flattened images."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

DEFAULT_HIDDEN = (300, 100)
"""Those of LeNet-300-100."""


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        input_shape: Shape of one sample; it is flattened.
        num_outputs: Number of classes, or 1.
        hidden: Sizes of the hidden layers.
        bias: Whether the layers have biases.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        hidden: tuple[int, ...] = DEFAULT_HIDDEN,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        sizes = (math.prod(input_shape), *hidden, num_outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (N, …) to (N, outputs)."""
        hidden = inputs.flatten(1)
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden))
        outputs: torch.Tensor = self.layers[-1](hidden)
        return outputs


def mlpnet(input_shape: tuple[int, ...], num_outputs: int) -> MLP:
    """MLPNet of the pruning literature: 784-40-20-10 on MNIST, without biases."""
    return MLP(input_shape, num_outputs, (40, 20), bias=False)
