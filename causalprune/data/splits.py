"""The splits of a data set, and how they are cut."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from causalprune.base.compute.inputs import Inputs, mapped, parts_of
from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError
from causalprune.data.images import ImageFiles
from causalprune.data.names import Augmentation
from causalprune.data.normalization import Normalization
from causalprune.data.tasks.classification import Classification
from causalprune.data.tasks.regression import Regression
from causalprune.data.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: training, validation or test.

    Attributes:
        inputs: (N, C, H, W) uint8 or float images, (N, F) float features, or (N, T) int64 tokens, in memory; or image
            files. Floats are float32, or float64 where float32 would cost digits. Several inputs are a tuple or a
            dictionary of tensors (N, …), which may be bools, too.
        targets: What the task expects: (N,) int64 labels, (N,) or (N, K) float32 or float64 values in original units,
            and so on.
    """

    inputs: Inputs | ImageFiles
    targets: torch.Tensor
    _resident: dict[torch.device, tuple[Inputs, torch.Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: torch.Tensor) -> Split:
        """The samples at ``indices`` (int64), in that order."""
        inputs = self.inputs
        chosen = inputs[indices] if isinstance(inputs, ImageFiles) else mapped(lambda part: part[indices], inputs)
        return Split(chosen, self.targets[indices])

    def on(self, device: torch.device) -> tuple[Inputs, torch.Tensor]:
        """Inputs and targets of an in-memory split on ``device``; they are copied there once."""
        assert not isinstance(self.inputs, ImageFiles)
        if device not in self._resident:
            self._resident[device] = mapped(lambda part: part.to(device), self.inputs), self.targets.to(device)
        return self._resident[device]


@dataclass(frozen=True, eq=False)
class RawData:
    """A data set as its source reads it, before the validation split is cut.

    Attributes:
        train: All training samples, including the future validation split unless there is one.
        test: The test split, or None to cut it from ``train``.
        class_names: One per class, in label order; empty for a regression.
        fingerprint: SHA-256 of the contents of the data set, or of the names and sizes of its files.
        augmentation: The augmentation that ``auto`` stands for.
        normalization: Published constants, if the literature fixes them.
        validation: The validation split, or None to cut it from ``train``.
        notes: What was decided about the data that the user didn't say, a line each.
        vocabulary: How many different tokens there are, where inputs are int64; 0 if only the data tell. Of several
            inputs, the number for each.
        said: What the targets are; None for labels if there are class names, and quantities otherwise.
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    fingerprint: str
    augmentation: Augmentation = "none"
    normalization: Normalization | None = None
    validation: Split | None = None
    notes: tuple[str, ...] = ()
    vocabulary: int | tuple[int, ...] = 0
    said: Task | None = None

    @property
    def task(self) -> Task:
        """What the targets are; not yet fitted to them."""
        return self.said or (Classification(self.class_names) if self.class_names else Regression())


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


def _named(inputs: Inputs) -> list[tuple[str, torch.Tensor]]:
    """The tensors of some inputs, with what tells them apart in a fingerprint."""
    if isinstance(inputs, torch.Tensor):
        return [("", inputs)]
    names = inputs if isinstance(inputs, Mapping) else range(len(inputs))
    return [(f".{name}", part) for name, part in zip(names, parts_of(inputs), strict=True)]


def data_in_memory(
    train: Split,
    test: Split | None,
    class_names: tuple[str, ...],
    augmentation: Augmentation = "none",
    *,
    validation: Split | None = None,
    notes: tuple[str, ...] = (),
    vocabulary: int | tuple[int, ...] = 0,
    task: Task | None = None,
) -> RawData:
    """A data set of splits in memory; its fingerprint covers names, dtypes, shapes, bytes and the class names."""
    splits = {"": train} if test is None else {"_train": train, "_test": test}
    if validation is not None:
        splits["_validation"] = validation
    tensors: dict[str, torch.Tensor] = {}
    for name, split in splits.items():
        assert not isinstance(split.inputs, ImageFiles)
        tensors |= {f"x{name}{part}": tensor for part, tensor in _named(split.inputs)} | {f"y{name}": split.targets}
    header = {name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()}
    digest = hashlib.sha256(json.dumps([header, class_names]).encode())
    for tensor in tensors.values():
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    fingerprint = digest.hexdigest()
    return RawData(
        train,
        test,
        class_names,
        fingerprint,
        augmentation,
        validation=validation,
        notes=notes,
        vocabulary=vocabulary,
        said=task,
    )
