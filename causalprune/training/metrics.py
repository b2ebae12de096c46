"""The metrics of a network on a split, and the check of a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from causalprune.base.compute.runtime import Processes
from causalprune.base.errors import DataError
from causalprune.data.batches import ALONE, Batches
from causalprune.data.datasets import DataSet
from causalprune.data.tasks.task import Batch, Task, in_order
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
    group: Processes = ALONE,
    channels_last: bool = False,
    notify: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measure ``model`` in evaluation mode, then restore the mode of every module.

    Sums are accumulated in float64, in the order of the batches, on the device: nothing is read before the end.

    Args:
        model: On ``device``; takes normalized inputs and returns outputs as the task of the data set expects them.
        data: The data set.
        split: ``train``, ``validation`` or ``test``.
        batch_size: Samples per forward pass.
        device: Where to compute.
        amp: ``bf16`` for automatic mixed precision, else ``none``.
        num_workers: Worker processes for image files that don't fit in memory.
        group: The processes that share the batches, all with the same weights and buffers; all get the same numbers,
            which are those of a single process.
        channels_last: See :class:`~causalprune.data.batches.Batches`.
        notify: Called after each batch of this process.

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
        channels_last=channels_last,
        smallest=least_batch(
            model, training=False, size=min(batch_size, len(data.split(split))), shape=data.input_shape
        ),
    )
    steps, samples = batches.steps_per_epoch, len(data.split(split))
    # A process without a batch of its own measures one that doesn't count, and knows by it what is summed.
    first = min(group.rank, steps - 1)
    # Metrics are float64, which mixed precision leaves alone.
    mixed = torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp == "bf16")
    with evaluation_mode(model), torch.no_grad(), mixed:
        if type(data.task).metrics is not Task.metrics:
            # Nobody knows how to add up what is measured in another way: each process measures all of it.
            return data.task.metrics(model, _watched(batches.epoch(0), notify))
        own = _watched(batches.epoch(0, start=first, every=group.count), notify)
        return data.task.metrics(model, own, samples, lambda parts: _summed(parts, steps, group))


def _watched(batches: Iterator[Batch], notify: Callable[[], None]) -> Iterator[Batch]:
    """The batches; each is done when the next one is asked for."""
    for batch in batches:
        yield batch
        notify()


def _summed(own: list[torch.Tensor], steps: int, group: Processes) -> torch.Tensor:
    """The sum over the batches, of which each process has every R-th one, in their order."""
    values = own
    if group.count > 1:
        every = own[0].new_zeros((steps, *own[0].shape))
        if group.rank < steps:
            every[group.rank :: group.count] = torch.stack(own)
        values = list(group.sum(every))
    return in_order(values)
