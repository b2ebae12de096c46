"""Reset batch normalization after a mask."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def reset_batchnorm(model: nn.Module) -> int:
    """Reset the statistics and the affine parameters of every batch normalization to those of a new layer.

    Returns:
        How many layers were reset.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.reset_parameters()
    return len(layers)
