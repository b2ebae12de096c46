"""Samples and their targets, in memory or as image files, and their normalisation."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from causalprune.data.images import ImageFiles
from causalprune.data.names import Augmentation
from causalprune.errors import DataError
from causalprune.specs import Task

Inputs = torch.Tensor | ImageFiles


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

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataError(
                "data set",
                expected="as many targets as inputs",
                found=f"{len(self.inputs)} inputs, {len(self.targets)} targets",
            )

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: torch.Tensor) -> Split:
        """The samples at ``indices`` (int64), in that order."""
        inputs = self.inputs.subset(indices) if isinstance(self.inputs, ImageFiles) else self.inputs[indices]
        return Split(inputs, self.targets[indices])

    def on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of an in-memory split on ``device``; copied there once."""
        assert isinstance(self.inputs, torch.Tensor)
        if device not in self._resident:
            self._resident[device] = self.inputs.to(device), self.targets.to(device)
        return self._resident[device]


@dataclass(frozen=True, eq=False)
class Normalization:
    """z = (x − mean)/std for each channel, feature or target, in the units of the stored values.

    Attributes:
        mean: (C,) or (F,) float32; (1,) for targets.
        std: The same shape, positive; 1 where the training split is constant.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def to(self, device: torch.device) -> Normalization:
        """The same on another device."""
        return Normalization(self.mean.to(device), self.std.to(device))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, …) values of any dtype to float32."""
        shape = (1, -1) + (1,) * (values.ndim - 2)
        # A copy even of float32 values: what follows is in place.
        result = values.to(torch.float32, copy=True)
        return result.sub_(self.mean.view(shape)).div_(self.std.view(shape))


@dataclass(frozen=True, eq=False)
class RawData:
    """What a family of data sets reads, before anything is cut from it.

    Attributes:
        task: Classification or regression.
        train: All training samples; the validation split is still among them.
        test: The test split, or None when it must be cut from ``train``.
        class_names: One a class, in label order; empty for a regression.
        fingerprint: SHA-256 of what identifies the data.
        augmentation: What ``--augment auto`` means.
        normalization: Published constants, where the literature fixes them.
    """

    task: Task
    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    fingerprint: str
    augmentation: Augmentation = "none"
    normalization: Normalization | None = None
