"""Give a network earlier weights under its mask."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from causalprune.errors import MismatchError
from causalprune.pruning.mask import Mask


def rewind(model: nn.Module, weights: Mapping[str, torch.Tensor], mask: Mask) -> None:
    """Give a model earlier weights, then set the pruned ones to zero.

    Everything is taken back: biases, normalization parameters and statistics, too. Which weights is the caller's
    choice: the pretrained ones (Shah et al., arXiv 2412.03035, version 1), or those before the recording (later).

    Args:
        model: Changed in place.
        weights: A whole state dict of this model.
        mask: The mask to apply.

    Raises:
        MismatchError: The state dict or the mask is of another model; the model is then as it was.
    """
    own = model.state_dict()
    for relation, odd in (("missing", own.keys() - weights.keys()), ("of no such model", weights.keys() - own.keys())):
        if odd:
            raise MismatchError(
                "weights to rewind to",
                expected=f"those of this {type(model).__name__}",
                found=f"{min(odd)} {relation}",
                remedy="name a checkpoint of the same model",
            )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise MismatchError(
                f"{name} to rewind to",
                expected=f"shape {tuple(own[name].shape)}",
                found=f"{tuple(tensor.shape)}",
                remedy="name a checkpoint of the same model",
            )
    hold = mask.bind(model)
    model.load_state_dict(weights)
    hold()
