"""What tasks with a class at each position have in common: at each pixel of an image, at each token of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from causalprune.base.errors import DataError
from causalprune.data.tasks.classification import divergence, drawn_cross_entropy
from causalprune.data.tasks.task import Task

UNLABELED = -100
"""The label of positions that don't count, which PyTorch's cross-entropy leaves out; arrays may have any below 0."""


@dataclass(frozen=True, eq=False)
class PositionTask(Task):
    """Targets are (N, …) int64 labels, one for each position; the loss is the mean cross-entropy over those labeled."""

    class_axis: ClassVar[int]
    """The axis of the outputs that the classes are along."""

    @classmethod
    def read(
        cls, arrays: Mapping[str, np.ndarray], source: str, class_names: Any = None
    ) -> tuple[tuple[torch.Tensor, ...], Self]:
        """Read whole numbers, a label at each position; those below 0 don't count."""
        values = [read_labels(array, f"{name} in {source}") for name, array in arrays.items()]
        classes = 1 + max(int(labels.max()) for labels in values)
        names = [] if class_names is None else [str(name) for name in np.asarray(class_names).ravel().tolist()]
        if names and len(names) < classes:
            raise DataError(f"class_names in {source}", expected=f"at least {classes} names", found=f"{len(names)}")
        return tuple(values), cls(tuple(names), num_outputs=len(names) or classes)

    def check(self, targets: torch.Tensor, what: str) -> None:
        """Require a label somewhere, and none beyond the outputs."""
        high = int(targets.max())
        if high < 0:
            raise DataError(what, expected="a label of at least 0", found="none")
        if self.num_outputs < 2:
            raise DataError(what, expected="at least 2 classes", found=f"{self.num_outputs}")
        if high >= self.num_outputs:
            raise DataError(what, expected=f"labels in 0..{self.num_outputs - 1}", found=f"the label {high}")

    def fitted(self, targets: torch.Tensor, what: str) -> Self:
        """The number of classes is known already."""
        del targets, what
        return self

    @cached_property
    def criterion(self) -> nn.Module:
        """Mean cross-entropy over the labeled positions."""
        return PositionLoss(self.class_axis, self.label_smoothing)

    def drawn_loss(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Cross-entropy of a label for each position, drawn from the softmax, smoothed."""
        return drawn_cross_entropy(self.rows(outputs), generator)

    def distance(self, outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """τ²·mean over positions of KL(softmax(z/τ) ‖ softmax(y/τ)) (Hinton et al., arXiv 1503.02531)."""
        return divergence(self.rows(outputs), self.rows(wanted))

    def rows(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs as (positions, K)."""
        return outputs.movedim(self.class_axis, -1).flatten(0, -2)


class PositionLoss(nn.CrossEntropyLoss):
    """Mean cross-entropy over the labeled positions of a batch; 0 if there is none.

    Args:
        class_axis: The axis of the outputs that the classes are along.
        label_smoothing: As for the base class.
    """

    def __init__(self, class_axis: int, label_smoothing: float = 0.0) -> None:
        super().__init__(ignore_index=UNLABELED, label_smoothing=label_smoothing)
        self._axis = class_axis

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Outputs with the classes along their axis, and labels of the other axes' shape."""
        total = functional.cross_entropy(
            input.movedim(self._axis, -1).flatten(0, -2),
            target.flatten(),
            reduction="sum",
            ignore_index=UNLABELED,
            label_smoothing=self.label_smoothing,
        )
        return total / (target != UNLABELED).sum().clamp(min=1)


def counts(numbers: torch.Tensor, known: torch.Tensor, length: int) -> torch.Tensor:
    """How often each of 0 … ``length`` − 1 is among those of the (n,) numbers that are known: (length,) int64."""
    # Not by torch.bincount or an index of bools, whose sizes a GPU would be asked for.
    return torch.zeros(length, dtype=torch.int64, device=numbers.device).scatter_add_(
        0, numbers.clamp(min=0), known.long()
    )


def read_labels(array: np.ndarray, what: str) -> torch.Tensor:
    """Whole numbers as int64; those below 0 become :data:`UNLABELED`.

    Raises:
        DataError: Anything else.
    """
    if array.dtype.kind not in "iub":
        raise DataError(what, expected="labels: whole numbers, below 0 where there is none", found=f"{array.dtype}")
    labels = torch.from_numpy(array.astype(np.int64))
    return labels.masked_fill(labels < 0, UNLABELED)
