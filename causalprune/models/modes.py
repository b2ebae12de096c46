"""Temporary evaluation mode, dropout, and the state of batch normalization."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from causalprune.base.compute.inputs import example_inputs, forward
from causalprune.base.compute.shapes import InputShape

_STOCHASTIC_DEPTH = ("StochasticDepth", "DropPath")
"""Classes of torchvision and timm, which may not be installed, and take a second to import."""


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


def disable_dropout(model: nn.Module) -> None:
    """Switch off the dropout of layers that are known to have it; everything else keeps its mode.

    ``nn.Dropout`` and its kin, ``nn.RReLU`` and stochastic depth (also timm's) go into evaluation mode; recurrent
    layers and attention, also within encoder and decoder layers, get a probability of 0. What a network does by itself,
    by ``functional.dropout`` or by adding noise, goes on.
    """
    for module in model.modules():
        if isinstance(module, (_DropoutNd, nn.RReLU)) or type(module).__name__ in _STOCHASTIC_DEPTH:
            module.eval()
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0


def evaluate_batchnorm(model: nn.Module) -> None:
    """Put every batch normalization into evaluation mode, where it normalizes by its running statistics."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def averaging_layers(model: nn.Module) -> list[nn.Module]:
    """The layers whose averages :func:`frozen_batch_statistics` can leave alone: PyTorch's batch normalizations.

    Not those of derived classes, which may do something else with their averages.
    """
    own = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return [module for module in model.modules() if type(module) in own]


@contextmanager
def frozen_batch_statistics(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Normalize by the statistics of the batch, as in training, without updating the running averages.

    Args:
        layers: See :func:`averaging_layers`.
    """
    changed = [layer for layer in layers if layer.training and layer.track_running_stats]
    for layer in changed:
        layer.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in changed:
            layer.track_running_stats = True  # type: ignore[assignment]


def least_batch(model: nn.Module, *, training: bool, size: int = 2, shape: InputShape = ()) -> int:
    """Samples that a batch should have: 2 if a batch normalization uses the statistics of the batch, else 1.

    Where batches are of one sample, 1 is enough if every such layer gets several values per channel of it, as from an
    image. A pass in evaluation mode tells; a layer that it doesn't reach is taken to need 2 samples.

    Args:
        model: The network; its modes are put back.
        training: Whether it is for training mode.
        size: Samples of the batches.
        shape: Shape of a sample, for a ``size`` below 2.
    """
    with evaluation_mode(model):
        model.train(training)
        layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        layers = [layer for layer in layers if layer.training or layer.running_mean is None]
    return 2 if layers and (size > 1 or _has_single_values(model, layers, shape)) else 1


def _has_single_values(model: nn.Module, layers: Sequence[nn.Module], shape: InputShape) -> bool:
    """Whether one of the layers gets a single value per channel of a sample, or isn't reached."""
    fewest: dict[nn.Module, int] = {}

    def note(layer: nn.Module, arguments: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        given = arguments[0] if arguments else named["input"]
        # Of two samples, because one may be too few for this pass.
        values = given.numel() // (2 * given.shape[1])
        fewest[layer] = min(values, fewest.get(layer, values))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with evaluation_mode(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            forward(model, example_inputs(shape, 2, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return any(fewest.get(layer, 0) < 2 for layer in layers)


def reset_batchnorm(model: nn.Module) -> None:
    """Reset the statistics and the affine parameters of every batch normalization to those of a new layer."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_parameters()
