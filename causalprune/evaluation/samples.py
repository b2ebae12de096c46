"""The samples that flatness is measured on: a fixed part of a split, in memory, in evaluation mode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from causalprune.data.batches import Batches
from causalprune.data.datasets import DataSet

Samples = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Batches of normalised inputs and targets on one device."""


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
