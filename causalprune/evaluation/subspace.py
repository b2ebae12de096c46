"""All parameters of a network as one vector, and the coordinates of it that aren't pruned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from causalprune.pruning.mask import Mask


class ParameterVector:
    """The parameters of a network in the order of ``named_parameters``, tied ones once.

    Args:
        model: The network.
        mask: Of its prunable weights.

    Attributes:
        names: Name of each tensor.
        tensors: The parameters themselves.
        kept: (n,) int64, the coordinates that aren't pruned weights: the kept ones, and all biases and normalisation
            parameters. On the parameters' device.
        total: Number of coordinates.
    """

    def __init__(self, model: nn.Module, mask: Mask) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.tensors = [parameter for _, parameter in model.named_parameters()]
        keep = {id(p): torch.ones(p.shape, dtype=torch.bool) for p in self.tensors}
        for name, kept in mask.tensors().items():
            keep[id(model.get_parameter(name))] &= kept
        self._keep = [keep[id(p)].to(p.device) for p in self.tensors]
        self.total = sum(p.numel() for p in self.tensors)
        self.kept = torch.cat([k.flatten() for k in self._keep]).nonzero().flatten()

    def keep(self, number: int) -> torch.Tensor:
        """Bools in the shape of tensor ``number``: what isn't pruned of it."""
        return self._keep[number]

    @contextmanager
    def restored(self) -> Iterator[list[torch.Tensor]]:
        """Let the body change the parameters in place; yields copies of them and puts these back."""
        copies = [p.detach().clone() for p in self.tensors]
        try:
            yield copies
        finally:
            self.move(copies)

    @torch.no_grad()
    def move(self, origin: list[torch.Tensor], *steps: tuple[float, list[torch.Tensor]]) -> None:
        """Set the parameters to ``origin`` plus the sum of scale × direction, in place."""
        for number, parameter in enumerate(self.tensors):
            parameter.copy_(origin[number])
            for scale, direction in steps:
                parameter.add_(direction[number], alpha=scale)
