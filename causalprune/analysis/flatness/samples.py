"""What flatness is measured on: fixed samples in memory, and a network's parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn

from causalprune.base.compute.inputs import joined, mapped
from causalprune.data.batches import Batches
from causalprune.data.datasets import DataSet
from causalprune.data.tasks.task import Batch, Task
from causalprune.models.mask import Mask

Samples = Sequence[Batch]
"""Batches of normalized inputs and targets on one device."""


def draw_samples(
    data: DataSet, split: str, *, count: int, batch_size: int, device: torch.device, seed: int, num_workers: int = 0
) -> list[Batch]:
    """The first ``count`` samples of a split after shuffling it with ``seed``, or all samples if it has fewer."""
    count = min(count, len(data.split(split)))
    size = min(batch_size, count)
    batches = Batches(data, split, batch_size=size, device=device, seed=seed, shuffle=True, num_workers=num_workers)
    found = list(islice(batches.epoch(0), -(-count // size)))
    inputs, targets = found[-1]
    left = len(targets) - (sum(len(y) for _, y in found) - count)
    found[-1] = mapped(lambda part: part[:left], inputs), targets[:left]
    if len(found) > 1 and left == 1:
        # A batch normalization without running averages can't do with one sample.
        (inputs, targets), (last_input, last_target) = found[-2:]
        found[-2:] = [(joined([inputs, last_input]), torch.cat([targets, last_target]))]
    return found


@torch.no_grad()
def mean_loss(model: nn.Module, task: Task, samples: Samples) -> float:
    """Mean loss of a network in its current mode, accumulated in float64."""
    total, count = 0.0, 0
    for batch in samples:
        total += float(task.exact_loss(model, batch)) * len(batch[1])
        count += len(batch[1])
    return total / count


class ParameterVector:
    """The parameters of a network as one vector, in the order of ``named_parameters``; tied parameters occur once.

    Args:
        model: The network.
        mask: Which of its prunable weights are kept.

    Attributes:
        tensors: The parameters themselves.
        keep: For each of them a bool tensor of its shape and device, False for pruned weights.
        kept: (n,) int64 coordinates of all parameters but the pruned weights, on the device of the parameters.
        total: Number of coordinates.
    """

    def __init__(self, model: nn.Module, mask: Mask) -> None:
        self.tensors = list(model.parameters())
        keep = {id(p): torch.ones(p.shape, dtype=torch.bool) for p in self.tensors}
        for name, kept in mask.tensors().items():
            keep[id(model.get_parameter(name))] &= kept
        self.keep = [keep[id(p)].to(p.device) for p in self.tensors]
        self.total = sum(p.numel() for p in self.tensors)
        self.kept = torch.cat([k.flatten() for k in self.keep]).nonzero().flatten()

    def noise(self, seed: int) -> list[torch.Tensor]:
        """A standard normal direction, zero at pruned weights; drawn on the CPU, so that it is the same on a GPU."""
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randn(p.shape, generator=generator, dtype=torch.float32).to(p) * keep
            for p, keep in zip(self.tensors, self.keep, strict=True)
        ]

    @contextmanager
    def restored(self) -> Iterator[list[torch.Tensor]]:
        """Restore the parameters after the body, which may change them in place; yields copies of them."""
        copies = [p.detach().clone() for p in self.tensors]
        try:
            yield copies
        finally:
            self.move(copies)

    @torch.no_grad()
    def move(self, origin: list[torch.Tensor], *steps: tuple[float, list[torch.Tensor]]) -> None:
        """Set the parameters in place to ``origin`` plus the sum of scale × direction over ``steps``."""
        for number, parameter in enumerate(self.tensors):
            parameter.copy_(origin[number])
            for scale, direction in steps:
                parameter.add_(direction[number], alpha=scale)
