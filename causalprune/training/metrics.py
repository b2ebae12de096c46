"""The metrics of a network on a split, and the check of a loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import DataError
from causalprune.data.batches import Batches
from causalprune.data.datasets import DataSet
from causalprune.models.modes import evaluation_mode, least_batch


def loss_value(loss: torch.Tensor, subject: str, remedy: str) -> float:
    """The value of a scalar loss.

    Raises:
        DataError: It isn't finite; ``subject`` and ``remedy`` say which loss and what to do.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise DataError(subject, expected="a finite number", found=str(value), remedy=remedy)
    return value


def evaluate_model(
    model: nn.Module,
    data: DataSet,
    split: str,
    *,
    batch_size: int,
    device: torch.device,
    amp: str = "none",
    num_workers: int = 0,
) -> dict[str, Any]:
    """Measure ``model`` in evaluation mode, then restore the mode of every module.

    Args:
        model: On ``device``; takes normalized inputs and returns outputs as the task of the data set expects them.
        data: The data set.
        split: ``train``, ``validation`` or ``test``.
        batch_size: Samples per forward pass.
        device: Where to compute.
        amp: ``bf16`` for automatic mixed precision, else ``none``.
        num_workers: Worker processes for image files that don't fit in memory.

    Returns:
        JSON-ready: ``task``; ``samples``, N; ``loss``, the mean of what training minimizes; and the metrics of the
        task, see its class in :mod:`causalprune.data.tasks`.

    Raises:
        DataError: The model's outputs aren't finite.
        MismatchError: The outputs have the wrong shape.
    """
    batches = Batches(
        data,
        split,
        batch_size=batch_size,
        device=device,
        seed=0,
        shuffle=False,
        num_workers=num_workers,
        smallest=least_batch(
            model, training=False, size=min(batch_size, len(data.split(split))), shape=data.input_shape
        ),
    )
    # Metrics are float64, which mixed precision leaves alone.
    mixed = torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp == "bf16")
    with evaluation_mode(model), torch.no_grad(), mixed:
        return data.task.metrics(model, batches.epoch(0))
