"""The task ``segmentation``: one of K classes for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from causalprune.base.specs import Headline
from causalprune.data.tasks.positions import UNLABELED, PositionTask, counts
from causalprune.data.tasks.task import Sums


@dataclass(frozen=True, eq=False)
class Segmentation(PositionTask):
    """Outputs are logits (N, K, H, W), targets int64 labels (N, H, W); pixels with a label below 0 don't count.

    The loss is the mean cross-entropy in nats over the labeled pixels. Metrics beside it:

    - ``miou``: Intersection over union, the mean over the classes that occur in the targets or in the answers.
    - ``pixel_accuracy``: Share of the labeled pixels with the right class.
    - ``guessing``: ``miou`` of always predicting the split's most frequent class.
    - ``per_class``: Intersection over union of each class; None for one that doesn't occur.
    """

    name: ClassVar[str] = "segmentation"
    class_axis: ClassVar[int] = 1
    headline: ClassVar[Headline] = Headline(
        "miou", "mean IoU", "always naming the most frequent class", "guessing", percent=True
    )

    def output_shape(self, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(K, H, W)."""
        return (self.num_outputs, *target_shape)

    def sums(self, outputs: torch.Tensor, targets: torch.Tensor) -> Sums:
        """Cross-entropy, and how often each class is taken for each other."""
        rows, labels = self.rows(outputs), targets.flatten()
        known = labels != UNLABELED
        pairs = labels * self.num_outputs + rows.argmax(1)
        return {
            "loss": functional.cross_entropy(rows, labels, reduction="sum", ignore_index=UNLABELED),
            "confusion": counts(pairs, known, self.num_outputs**2).view(self.num_outputs, -1),
        }

    def summary(self, sums: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """Loss, intersections over unions, accuracy."""
        del samples  # A mean over pixels.
        confusion = torch.tensor(sums["confusion"], dtype=torch.float64)
        hits, sizes = confusion.diagonal(), confusion.sum(1)
        pixels = float(sizes.sum())
        unions = sizes + confusion.sum(0) - hits
        shares = [hit / union if union else None for hit, union in zip(hits.tolist(), unions.tolist(), strict=True)]
        found = [share for share in shares if share is not None]
        return {
            "loss": sums["loss"] / pixels,
            "miou": sum(found) / len(found),
            "pixel_accuracy": float(hits.sum()) / pixels,
            "guessing": float(sizes.max()) / pixels / int((sizes > 0).sum()),
            "per_class": shares,
        }
