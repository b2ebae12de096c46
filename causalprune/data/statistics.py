"""Mean and standard deviation of the training split, and the fingerprint of arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch

from causalprune.data.images import ImageFiles
from causalprune.data.splits import Inputs, Normalization

SAMPLED_FILES = 1024
"""Statistics of image files that don't fit in memory come from this many, spread evenly over the training split."""


def training_statistics(inputs: Inputs) -> Normalization:
    """Population mean and standard deviation of each channel or feature, computed in float64.

    Args:
        inputs: Inputs of the training split. Of image files, a sample of :data:`SAMPLED_FILES` is decoded.

    Returns:
        Mean and standard deviation, float32; the latter is 1 where all values are equal, as scikit-learn's
        ``StandardScaler`` has it.
    """
    if isinstance(inputs, ImageFiles):
        inputs = inputs.read(spread(len(inputs), SAMPLED_FILES))
    if inputs.dtype == torch.uint8:
        return _byte_statistics(inputs)
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    values = inputs.double()
    constant = values.amax(axes) == values.amin(axes)
    std, mean = torch.std_mean(values, axes, correction=0)
    return Normalization(mean.float(), torch.where(constant, 1.0, std).float())


def spread(count: int, wanted: int) -> torch.Tensor:
    """Up to ``wanted`` indices, spread evenly over ``count``; int64."""
    wanted = min(count, wanted)
    return torch.arange(wanted) * count // wanted


def _byte_statistics(images: torch.Tensor) -> Normalization:
    # Histograms make the sums exact and need no float copy of the images.
    levels = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in images.unbind(1):
        shares = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
        mean = (shares * levels).sum()
        means.append(mean)
        stds.append((shares * (levels - mean) ** 2).sum().sqrt() if (shares > 0).sum() > 1 else torch.ones_like(mean))
    return Normalization(torch.stack(means).float(), torch.stack(stds).float())


def fingerprint_tensors(tensors: Mapping[str, torch.Tensor], class_names: tuple[str, ...]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the tensors, and over the class names."""
    header = {name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()}
    digest = hashlib.sha256(json.dumps([header, class_names]).encode())
    for tensor in tensors.values():
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
