"""The time of a forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

from causalprune.models.modes import evaluation_mode

LATENCY_BATCHES = (1, 64)
"""Batch sizes at which latency is measured."""

_WARM_UP, _FEWEST = 3, 7
"""Calls before measuring, and fewest measured ones."""


def latency(
    models: Sequence[nn.Module], input_shape: tuple[int, ...], batch_size: int, *, seconds: float = 0.5
) -> list[float]:
    """Median seconds of a forward pass, on the device and with the number of threads at hand.

    The models take turns call by call, so that a machine that is busy for a while is so for all of them alike.

    Args:
        models: The networks to compare; measured in evaluation mode.
        input_shape: Shape of one sample.
        batch_size: Samples at once.
        seconds: How long to measure, for each model.
    """
    device = next(models[0].parameters()).device
    inputs = torch.randn(batch_size, *input_shape, device=device)
    samples: list[list[float]] = [[] for _ in models]
    with evaluation_mode(*models):
        for model in models:
            for _ in range(_WARM_UP):
                _timed(model, inputs)
        end = time.perf_counter() + seconds * len(models)
        while time.perf_counter() < end or len(samples[0]) < _FEWEST:
            for model, found in zip(models, samples, strict=True):
                found.append(_timed(model, inputs))
    return [statistics.median(found) for found in samples]


def _timed(model: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        started = time.perf_counter()
        model(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        return time.perf_counter() - started
