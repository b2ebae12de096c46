"""The task ``multi-label``: any number of K labels for each sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from causalprune.base.errors import DataError
from causalprune.base.specs import Headline
from causalprune.data.tasks.classification import SMOOTHING, TEMPERATURE
from causalprune.data.tasks.task import Sums, Task


@dataclass(frozen=True, eq=False)
class MultiLabel(Task):
    """Outputs are logits (N, K), targets (N, K) of 0 and 1; an output above 0 names its label.

    The loss is the binary cross-entropy in nats, a mean over samples and labels. Metrics beside it, as scikit-learn
    computes them with ``zero_division=0``:

    - ``f1``: F1 over all samples and labels together (micro average).
    - ``f1_macro``: The mean of the F1 of each label.
    - ``exact``: Share of the samples with all labels right.
    - ``guessing``: The best ``f1`` of naming the same labels for every sample.
    - ``per_class``: F1 of each label.
    """

    name: ClassVar[str] = "multi-label"
    headline: ClassVar[Headline] = Headline(
        "f1", "F1", "naming the same labels for every sample", "guessing", percent=True
    )

    @classmethod
    def read(
        cls, arrays: Mapping[str, np.ndarray], source: str, class_names: Any = None
    ) -> tuple[tuple[torch.Tensor, ...], Self]:
        """Read rows of 0 and 1."""
        for name, array in arrays.items():
            rows = array.ndim == 2 and array.dtype.kind in "buif"
            if not rows or not np.isin(array, (0, 1)).all():
                found = f"shape {array.shape}, dtype {array.dtype}" + (", other values" if rows else "")
                raise DataError(f"{name} in {source}", expected="rows of 0 and 1, shape (N, labels)", found=found)
        labels = next(iter(arrays.values())).shape[1]
        names = [str(n) for n in (range(labels) if class_names is None else np.asarray(class_names).ravel().tolist())]
        if len(names) != labels:
            raise DataError(f"class_names in {source}", expected=f"{labels} names", found=f"{len(names)}")
        return tuple(torch.from_numpy(array.astype(np.float32)) for array in arrays.values()), cls(tuple(names))

    def check(self, targets: torch.Tensor, what: str) -> None:
        """Require a column for each label."""
        if targets.shape[1:] != (len(self.class_names),):
            expected = f"{len(self.class_names)} labels for each sample"
            raise DataError(what, expected=expected, found=f"shape {tuple(targets.shape)}")

    def fitted(self, targets: torch.Tensor, what: str) -> Self:
        """There are as many outputs as labels."""
        del targets, what
        return replace(self, num_outputs=len(self.class_names))

    def output_shape(self, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(K,)."""
        return target_shape

    @cached_property
    def criterion(self) -> nn.Module:
        """Mean binary cross-entropy."""
        return nn.BCEWithLogitsLoss()

    def sums(self, outputs: torch.Tensor, targets: torch.Tensor) -> Sums:
        """Cross-entropy, and what is named by label."""
        named, true = outputs > 0, targets > 0
        return {
            "loss": functional.binary_cross_entropy_with_logits(outputs, targets.double(), reduction="sum"),
            "hits": (named & true).sum(0),
            "named": named.sum(0),
            "true": true.sum(0),
            "exact": (named == true).all(1).sum(),
        }

    def summary(self, sums: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """Loss and F1."""
        hits, named, true = sums["hits"], sums["named"], sums["true"]
        per_class = [_f1(*counts) for counts in zip(hits, named, true, strict=True)]
        # The best set of k labels is that of the k most frequent.
        frequent = sorted(true, reverse=True)
        constant = [_f1(sum(frequent[:k]), k * samples, sum(true)) for k in range(len(true) + 1)]
        return {
            "loss": sums["loss"] / samples / len(true),
            "f1": _f1(sum(hits), sum(named), sum(true)),
            "f1_macro": sum(per_class) / len(per_class),
            "exact": sums["exact"] / samples,
            "guessing": max(constant),
            "per_class": per_class,
        }

    def drawn_loss(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Binary cross-entropy of labels drawn from the outputs; one in ten is as likely as not."""
        chances = (1 - SMOOTHING) * outputs.detach().double().sigmoid().cpu() + SMOOTHING / 2
        drawn = torch.bernoulli(chances, generator=generator).to(outputs)
        return functional.binary_cross_entropy_with_logits(outputs, drawn, reduction="sum")

    def distance(self, outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """τ²·mean over samples and labels of KL(σ(z/τ) ‖ σ(y/τ))."""
        own, other = (each.float() / TEMPERATURE for each in (outputs, wanted))
        chances = other.sigmoid()
        cross = functional.binary_cross_entropy_with_logits(own, chances)
        return TEMPERATURE**2 * (cross - functional.binary_cross_entropy_with_logits(other, chances))


def _f1(hits: float, named: float, true: float) -> float:
    return 2 * hits / (named + true) if named + true else 0.0
