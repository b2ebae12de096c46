"""Running statistics of batch normalization, estimated anew for weights that changed without a training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from causalprune.base.compute.inputs import Inputs, forward
from causalprune.models.modes import evaluation_mode
from causalprune.training.pass_state import PassState


def averaging_batchnorm(model: nn.Module) -> list[_BatchNorm]:
    """The batch normalizations, also of derived classes, that keep running statistics while the network is trained.

    Not those without any (``track_running_stats=False``), nor those that the network's own ``train()`` leaves in
    evaluation mode: their statistics are frozen. All modes are put back.
    """
    with evaluation_mode(model):
        model.train()
        layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
        return [layer for layer in layers if layer.track_running_stats and layer.running_mean is not None]


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, batches: Iterable[Inputs]) -> None:
    """Set the running mean and variance of the :func:`averaging_batchnorm` layers to those of some samples, in place.

    Each becomes the mean over the batches of the mean, and of the unbiased variance, of the layer's inputs in a batch,
    per channel, as ``torch.optim.swa_utils.update_bn`` computes them (Izmailov et al., arXiv 1803.05407, section 3.3).
    Every batch counts alike. Only these layers are in training mode: each sees what the others give it when they
    normalize by the batch, and nothing is dropped out. Nothing else changes: affine parameters, ``momentum``,
    ``num_batches_tracked``, other buffers, modes, the states of the random generators. A layer that no batch reaches
    keeps its statistics.

    Args:
        model: On any device.
        batches: Inputs of B samples each, on the same device.

    Raises:
        ValueError: PyTorch's, if a layer gets a single value per channel. All statistics are as they were.
    """
    layers = averaging_batchnorm(model)
    kept = [(layer.momentum, {name: b.clone() for name, b in layer.named_buffers(recurse=False)}) for layer in layers]
    found: list[dict[str, torch.Tensor]] = []
    with evaluation_mode(model):
        state = PassState(model)
        state.save()
        try:
            with state.repeated():
                for layer in layers:
                    layer.training = True
                    layer.reset_running_stats()
                    layer.momentum = None
                for inputs in batches:
                    forward(model, inputs)
                found = [_estimates(layer) for layer in layers]
        finally:
            for layer, (momentum, buffers) in zip(layers, kept, strict=True):
                layer.momentum = momentum
                for name, value in buffers.items():
                    layer.get_buffer(name).copy_(value)
    for layer, estimates in zip(layers, found, strict=True):
        for name, value in estimates.items():
            layer.get_buffer(name).copy_(value)


def _estimates(layer: _BatchNorm) -> dict[str, torch.Tensor]:
    """Mean and variance of a layer; empty if it hasn't been called."""
    if not layer.num_batches_tracked:
        return {}
    return {name: layer.get_buffer(name).clone() for name in ("running_mean", "running_var")}
