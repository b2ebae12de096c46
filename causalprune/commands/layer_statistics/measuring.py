"""Measuring the layers of a network on training samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs
from causalprune.commands._network import training_inputs
from causalprune.data.datasets import DataSet
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.layer_statistics import LayerStatistics, layer_statistics

_BATCH = 500
"""Samples in one pass."""


def measure_layers(
    model: nn.Module,
    index: ParameterIndex,
    data: DataSet,
    device: torch.device,
    *,
    samples: int,
    seed: int,
    num_workers: int = 0,
    between: Callable[[], None] = lambda: None,
) -> dict[str, LayerStatistics]:
    """Measure the layers of a network on training samples.

    Args:
        model: The network, on ``device``.
        index: Its prunable parameters.
        data: What it was trained on.
        device: Where to compute.
        samples: How many samples; all if there are fewer.
        seed: Of their draw, and of the labels.
        num_workers: Processes that load samples which don't fit in memory.
        between: Called before each pass; may raise to stop.

    Returns:
        By the name of the weight, on the CPU.

    Raises:
        MismatchError: A layer that no forward pass reaches.
    """

    def batches() -> Iterable[Inputs]:
        for batch in training_inputs(
            data, device, count=samples, batch_size=_BATCH, seed=seed, num_workers=num_workers
        ):
            between()
            yield batch

    found = layer_statistics(model, index, batches(), data.task.drawn_loss, seed=seed)
    return {name: layer.to("cpu") for name, layer in found.items()}
