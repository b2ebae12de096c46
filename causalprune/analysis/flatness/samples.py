"""What flatness is measured on: a fixed part of a split, in memory, and a network's parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from causalprune.data.batches import Batches
from causalprune.data.datasets import DataSet
from causalprune.models.mask import Mask

Samples = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Batches of normalized inputs and targets on one device."""


def draw_samples(
    data: DataSet, split: str, *, count: int, batch_size: int, device: torch.device, seed: int, num_workers: int = 0
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first ``count`` samples of a split in an order that the seed decides, or all of them if it has fewer."""
    count = min(count, len(data.split(split)))
    batches = Batches(
        data,
        split,
        batch_size=min(batch_size, count),
        device=device,
        seed=seed,
        shuffle=True,
        num_workers=num_workers,
    )
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    left = count
    for inputs, targets in batches.epoch(0):
        found.append((inputs[:left], targets[:left]))
        left -= len(found[-1][0])
        if left == 0:
            break
    return found


@torch.no_grad()
def mean_loss(model: nn.Module, loss: nn.Module, samples: Samples) -> float:
    """Mean loss of a network in the mode that it is in; accumulated in float64."""
    total, count = 0.0, 0
    for inputs, targets in samples:
        outputs = model(inputs).double()
        value = loss(outputs, targets.double() if targets.is_floating_point() else targets)
        total += float(value) * len(inputs)
        count += len(inputs)
    return total / count


class ParameterVector:
    """The parameters of a network in the order of ``named_parameters``, tied ones once.

    Args:
        model: The network.
        mask: Of its prunable weights.

    Attributes:
        names: Name of each tensor.
        tensors: The parameters themselves.
        kept: (n,) int64, the coordinates that aren't pruned weights: the kept ones, and all biases and normalization
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
