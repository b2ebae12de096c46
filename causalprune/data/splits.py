"""The splits of a data set: how they are cut, and the normalization measured on the training split."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field

import torch

from causalprune.base.errors import DataError
from causalprune.base.runtime import keyed_seed
from causalprune.base.specs import Task
from causalprune.data.images import ImageFiles
from causalprune.data.names import Augmentation

Inputs = torch.Tensor | ImageFiles

SAMPLED_FILES = 1024
"""For image files that don't fit in memory, statistics are computed from this many of the training split."""


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: training, validation or test.

    Attributes:
        inputs: (N, C, H, W) uint8 or float32 images, or (N, F) float32 features, in memory; or image files.
        targets: (N,) int64 labels, or (N,) float32 values in original units.
    """

    inputs: Inputs
    targets: torch.Tensor
    _resident: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: torch.Tensor) -> Split:
        """The samples at ``indices`` (int64), in that order."""
        return Split(self.inputs[indices], self.targets[indices])

    def on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of an in-memory split on ``device``; they are copied there once."""
        assert isinstance(self.inputs, torch.Tensor)
        if device not in self._resident:
            self._resident[device] = self.inputs.to(device), self.targets.to(device)
        return self._resident[device]


@dataclass(frozen=True, eq=False)
class Normalization:
    """z = (x − mean)/std for each channel, feature or target, in the units of the stored values.

    Attributes:
        mean: (C,) or (F,) float32; (1,) for targets.
        std: Same shape, positive; 1 where the training split is constant.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def to(self, device: torch.device) -> Normalization:
        """A copy on another device."""
        return Normalization(self.mean.to(device), self.std.to(device))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Normalize (N, C, …) values of any dtype to float32."""
        shape = (1, -1) + (1,) * (values.ndim - 2)
        # A copy even of float32 values, because the next line works in place.
        result = values.to(torch.float32, copy=True)
        return result.sub_(self.mean.view(shape)).div_(self.std.view(shape))


@dataclass(frozen=True, eq=False)
class RawData:
    """A data set as its source reads it, before the validation split is cut.

    Attributes:
        train: All training samples, including the future validation split.
        test: The test split, or None to cut it from ``train``.
        class_names: One per class, in label order; empty for a regression.
        fingerprint: SHA-256 of the contents of the data set, or of the names and sizes of its files.
        augmentation: The augmentation that ``auto`` stands for.
        normalization: Published constants, if the literature fixes them.
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    fingerprint: str
    augmentation: Augmentation = "none"
    normalization: Normalization | None = None

    @property
    def task(self) -> Task:
        """Classification or regression."""
        return "classification" if self.class_names else "regression"


def holdout(
    targets: torch.Tensor, fraction: float, seed: int, *, stratify: bool, part: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ⌊N·fraction + ½⌋ samples without replacement.

    With ``stratify``, class c contributes ⌊n_c·fraction⌋ samples or one more, by largest remainder (ties: the lower
    label), but never its last sample. The total is smaller only for that reason.

    Args:
        targets: (N,) labels, int64 from 0 when ``stratify``.
        fraction: Fraction to draw, in (0, 1).
        seed: Seed of the draw, which depends on ``seed`` and ``part`` alone.
        stratify: Preserve the proportions of the classes.
        part: What the drawn samples become, ``validation`` or ``test``.

    Returns:
        The indices that remain and the indices that were drawn, int64, both in increasing order; together all N.

    Raises:
        DataError: One of the two would be empty.
    """
    count = len(targets)
    total = math.floor(count * fraction + 0.5)
    generator = torch.Generator().manual_seed(keyed_seed(seed, part))
    order = torch.randperm(count, generator=generator)
    if stratify:
        sizes = torch.bincount(targets)
        quota = _quotas(sizes, fraction, total)
        order = order[torch.argsort(targets[order], stable=True)]
        labels = targets[order]
        starts = torch.cumsum(sizes, 0) - sizes
        drawn = torch.arange(count) - starts[labels] < quota[labels]
    else:
        drawn = torch.arange(count) < total
    held, kept = order[drawn].sort().values, order[~drawn].sort().values
    if len(held) == 0 or len(kept) == 0:
        raise DataError(
            f"{part} split",
            expected=f"at least one sample in it and one outside of it at a fraction of {fraction:g}",
            found=f"{len(held)} of {count}",
            remedy="use more data or another fraction",
        )
    return kept, held


def _quotas(sizes: torch.Tensor, fraction: float, total: int) -> torch.Tensor:
    exact = sizes.double() * fraction
    quota = exact.floor().long()
    order = torch.argsort(exact - quota, descending=True, stable=True)
    quota[order[: max(0, total - int(quota.sum()))]] += 1
    return torch.minimum(quota, (sizes - 1).clamp(min=0))


def training_statistics(inputs: Inputs) -> Normalization:
    """Population mean and standard deviation of each channel or feature, computed in float64.

    Args:
        inputs: Inputs of the training split. For image files, a sample of :data:`SAMPLED_FILES` is decoded.

    Returns:
        Mean and standard deviation, float32; the standard deviation is 1 where all values are equal, as in
        scikit-learn's ``StandardScaler``.
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


def data_in_memory(
    train: Split, test: Split | None, class_names: tuple[str, ...], augmentation: Augmentation = "none"
) -> RawData:
    """A data set of splits in memory; its fingerprint covers names, dtypes, shapes, bytes and the class names."""
    splits = {"": train} if test is None else {"_train": train, "_test": test}
    tensors: dict[str, torch.Tensor] = {}
    for name, split in splits.items():
        assert isinstance(split.inputs, torch.Tensor)
        tensors |= {f"x{name}": split.inputs, f"y{name}": split.targets}
    header = {name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()}
    digest = hashlib.sha256(json.dumps([header, class_names]).encode())
    for tensor in tensors.values():
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return RawData(train, test, class_names, digest.hexdigest(), augmentation)
