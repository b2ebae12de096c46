"""The mode that a network computes in: evaluation for a while, and what its batch normalization does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode while the body runs; then every module is in the mode that it was in."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def frozen_batch_statistics(model: nn.Module) -> Iterator[None]:
    """Normalize by the statistics of the batch, as in training, but leave the running averages as they are."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def reset_batchnorm(model: nn.Module) -> int:
    """Reset the statistics and the affine parameters of every batch normalization to those of a new layer.

    Returns:
        How many layers were reset.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.reset_parameters()
    return len(layers)
