"""Temporary evaluation mode, and the state of batch normalization."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode while the body runs, then put every module back into its mode."""
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
    """Normalize by the statistics of the batch, as in training, without updating the running averages."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def least_batch(model: nn.Module, *, training: bool) -> int:
    """Samples that a batch must have: 2 if a batch normalization uses the statistics of the batch, else 1.

    Args:
        model: The network; its modes are put back.
        training: Whether it is for training mode.
    """
    with evaluation_mode(model):
        model.train(training)
        layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        return 2 if any(layer.training or layer.running_mean is None for layer in layers) else 1


def reset_batchnorm(model: nn.Module) -> None:
    """Reset the statistics and the affine parameters of every batch normalization to those of a new layer."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_parameters()
