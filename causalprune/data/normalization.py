"""Standardization of inputs and targets, in float32 where that is enough, and in float64 where it isn't."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from causalprune.base.compute.inputs import Inputs, arranged_as, parts_of
from causalprune.base.errors import DataError
from causalprune.data.images import ImageFiles

SAMPLED_FILES = 1024
"""For image files that don't fit in memory, statistics are computed from this many of the training split."""

TOLERANCE = 2.0**-18
"""Largest rounding error of a value in float32, in standard deviations of its feature; beyond it float64 is used.

Values within 64 standard deviations of 0 always keep to it; Unix times don't."""

_BLOCK = 2**24
"""Values that are converted to float64 at a time."""


@dataclass(frozen=True, eq=False)
class Normalization:
    """z = (x − mean)/std for each channel, feature or target, in the units of the stored values.

    Attributes:
        mean: (C,) or (F,), (1,) for targets; float32, or float64 where float32 would cost digits of z.
        std: Same shape and dtype, positive; 1 where the training split is constant.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def to(self, device: torch.device) -> Normalization:
        """A copy on another device."""
        return Normalization(self.mean.to(device), self.std.to(device))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Normalize (N, C, …) values of any dtype to float32; they are rounded to float32 after, not before."""
        shape = (1, -1) + (1,) * (values.ndim - 2)
        # A copy even of values that have this dtype, because the next line works in place.
        result = values.to(self.mean.dtype, copy=True)
        return result.sub_(self.mean.view(shape)).div_(self.std.view(shape)).float()


@dataclass(frozen=True, eq=False)
class SeveralNormalizations:
    """Those of several inputs.

    Attributes:
        parts: In the order of the inputs; None for one that stays as it is.
    """

    parts: tuple[Normalization | None, ...]

    def to(self, device: torch.device) -> SeveralNormalizations:
        """A copy on another device."""
        return SeveralNormalizations(tuple(part and part.to(device) for part in self.parts))

    def __call__(self, inputs: Inputs) -> Inputs:
        """Normalize each input by its own."""
        pairs = zip(self.parts, parts_of(inputs), strict=True)
        return arranged_as(inputs, [_normalized(each, part) for each, part in pairs])


def several_statistics(inputs: Inputs) -> SeveralNormalizations:
    """How several inputs of the training split are standardized: floats and bytes are, whole numbers and bools aren't.

    (N, F) features by column and (N, C, H, W) images by channel, as single inputs are; what has one or three axes, by
    one mean and one standard deviation.
    """
    return SeveralNormalizations(
        tuple(
            training_statistics(with_channels(part)) if part.is_floating_point() or part.dtype == torch.uint8 else None
            for part in parts_of(inputs)
        )
    )


def with_channels(values: torch.Tensor) -> torch.Tensor:
    """Values of one or three axes as of one feature or channel."""
    return values[:, None] if values.ndim in (1, 3) else values


def _normalized(normalization: Normalization | None, values: torch.Tensor) -> torch.Tensor:
    return values if normalization is None else normalization(with_channels(values)).view(values.shape)


def training_statistics(inputs: torch.Tensor | ImageFiles) -> Normalization:
    """Population mean and standard deviation of each channel or feature, computed in float64.

    Args:
        inputs: (N, C, …) values of the training split. For image files, a sample of :data:`SAMPLED_FILES` is decoded.

    Returns:
        Mean and standard deviation. They are float64 if the inputs are, or if rounding them to float32 would move
        standardized values by more than :data:`TOLERANCE`. The standard deviation is 1 where all values are equal (or
        differ by less than float64 can square), as in scikit-learn's ``StandardScaler``.
    """
    if isinstance(inputs, ImageFiles):
        inputs = inputs.read(spread(len(inputs), SAMPLED_FILES))
    if inputs.dtype == torch.uint8:
        return _byte_statistics(inputs)
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    values = inputs.double()
    high = values.amax(axes)
    constant = high == values.amin(axes)
    std, mean = torch.std_mean(values, axes, correction=0)
    # The mean of equal values may differ from them by rounding, and nothing would scale that down.
    mean, std = torch.where(constant, high, mean), torch.where(constant | (std == 0), 1.0, std)
    rounded = Normalization(mean.float(), std.float())
    error = torch.maximum((rounded.mean.double() - mean).abs(), (rounded.std.double() - std).abs())
    enough = inputs.dtype != torch.float64 and bool((error <= TOLERANCE * std).all())
    if enough:
        return rounded
    # Far from zero, the sum loses digits that the differences still have.
    shape = [-1 if axis == 1 else 1 for axis in range(inputs.ndim)]
    return Normalization(mean + (values - mean.view(shape)).mean(axes), std)


def stored(array: np.ndarray, what: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Numbers as float32, or as float64 where float32 has not the digits to standardize them.

    Args:
        array: (N, C, …) numbers.
        what: What they are, for the error.
        dtype: Which of the two, if that is decided; else float64 if rounding to float32 moves a value by more than
            :data:`TOLERANCE` standard deviations of its channel or feature.

    Raises:
        DataError: A value isn't finite in float32.
    """
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(rounded)
    if bad.any():
        nan = int(np.isnan(rounded).sum())
        raise DataError(
            what,
            expected="finite float32 numbers",
            found=f"{nan} NaN and {int(bad.sum()) - nan} infinite or too large, "
            f"the first in sample {int(np.argwhere(bad)[0, 0])}",
        )
    if dtype is None:
        exact = array.dtype in (np.float32, np.float16, np.bool_) or array.dtype.itemsize == 1
        dtype = torch.float32 if exact or _float32_suffices(array, rounded) else torch.float64
    return torch.from_numpy(rounded if dtype == torch.float32 else np.ascontiguousarray(array, dtype=np.float64))


def _float32_suffices(array: np.ndarray, rounded: np.ndarray) -> bool:
    axes = tuple(axis for axis in range(array.ndim) if axis != 1)
    width = max(1, _BLOCK * array.shape[1] // array.size)
    for start in range(0, array.shape[1], width):
        values = array[:, start : start + width].astype(np.float64)
        error = np.abs(values - rounded[:, start : start + width]).max(axes)
        varies = values.max(axes) > values.min(axes)
        if (varies & (error > TOLERANCE * values.std(axes))).any():
            return False
    return True


def spread(count: int, wanted: int) -> torch.Tensor:
    """Up to ``wanted`` indices, int64, spread evenly over ``count``."""
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
