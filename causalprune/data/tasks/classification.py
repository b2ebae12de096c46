"""The task ``classification``: one of K classes for each sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from causalprune.base.errors import DataError, MismatchError
from causalprune.base.specs import ACCURACY, Headline
from causalprune.data.tasks.task import Sums, Task

TEMPERATURE = 2.0
"""τ: what the outputs of both networks are divided by, so that the small probabilities of the dense one count, too."""

SMOOTHING = 0.1
"""How often a label is drawn from all classes alike rather than from the network's outputs."""


@dataclass(frozen=True, eq=False)
class Classification(Task):
    """Outputs are logits (N, K), targets int64 labels (N,); the loss is the mean cross-entropy in nats.

    Metrics beside the loss:

    - ``top1``: Top-1 accuracy in [0, 1]; among equal outputs the lowest index wins.
    - ``top5``: Share of samples whose label has one of the 5 largest outputs; None with at most 5 classes, where it
      would always be 1.
    - ``guessing``: Top-1 accuracy of always predicting the split's most frequent class.
    - ``per_class``: Top-1 accuracy within each class, in label order; None for a class without samples.
    """

    name: ClassVar[str] = "classification"
    stratified: ClassVar[bool] = True
    headline: ClassVar[Headline] = ACCURACY

    @classmethod
    def read(
        cls, arrays: Mapping[str, np.ndarray], source: str, class_names: Any = None
    ) -> tuple[tuple[torch.Tensor, ...], Self]:
        """Read labels by the rules of :func:`causalprune.data.sources.targets.read_targets`."""
        from causalprune.data.sources.targets import read_targets

        found = read_targets(arrays, source, class_names=class_names, task="classification")
        return found.values, cls(found.class_names)

    def check(self, targets: torch.Tensor, what: str) -> None:
        """Require labels of at least two classes."""
        check_labels(targets, len(self.class_names), what)

    def fitted(self, targets: torch.Tensor, what: str) -> Self:
        """There are as many outputs as classes."""
        del targets, what
        return replace(self, num_outputs=len(self.class_names))

    def output_shape(self, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(K,)."""
        del target_shape
        return (self.num_outputs,)

    @cached_property
    def criterion(self) -> nn.Module:
        """Mean cross-entropy."""
        return nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)

    def sums(self, outputs: torch.Tensor, targets: torch.Tensor) -> Sums:
        """Cross-entropy, and hits by class."""
        classes = outputs.shape[1]
        of_label = outputs.gather(1, targets[:, None])
        earlier = torch.arange(classes, device=outputs.device) < targets[:, None]
        # Ranking equal outputs by index keeps a constant network from scoring on every sample.
        rank = ((outputs > of_label) | ((outputs == of_label) & earlier)).sum(1)
        # Not by torch.bincount or an index of bools, whose sizes a GPU would be asked for.
        of_class = targets[:, None] == torch.arange(classes, device=outputs.device)
        return {
            "loss": functional.cross_entropy(outputs, targets, reduction="sum"),
            "top5": (rank < 5).sum(),
            "correct": (of_class & (rank == 0)[:, None]).sum(0),
            "sizes": of_class.sum(0),
        }

    def summary(self, sums: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """Loss and accuracies."""
        return {
            "loss": sums["loss"] / samples,
            "top1": sum(sums["correct"]) / samples,
            "top5": sums["top5"] / samples if len(sums["sizes"]) > 5 else None,
            "guessing": max(sums["sizes"]) / samples,
            "per_class": [c / n if n else None for c, n in zip(sums["correct"], sums["sizes"], strict=True)],
        }

    def drawn_loss(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Cross-entropy of labels drawn from the softmax, smoothed."""
        return drawn_cross_entropy(outputs, generator)

    def distance(self, outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """τ²·mean over samples of KL(softmax(z/τ) ‖ softmax(y/τ)) (Hinton et al., arXiv 1503.02531)."""
        return divergence(outputs, wanted)


def check_labels(labels: torch.Tensor, classes: int, what: str) -> None:
    """Require labels in 0 … K − 1, and at least two classes.

    Raises:
        DataError: Others.
    """
    if classes < 2:
        raise DataError(what, expected="at least 2 classes", found=str(classes))
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(what, expected=f"labels in 0..{classes - 1}", found=f"the label {low if low < 0 else high}")


def drawn_cross_entropy(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cross-entropy of logits (N, K), summed, with labels drawn from the softmax; one in ten from all classes alike.

    A network that is sure of every sample would hardly ever draw another class than its own, and the weights of whole
    classes would seem to cost nothing.

    Raises:
        MismatchError: Logits of another form.
    """
    if logits.ndim != 2:
        raise MismatchError(
            "outputs of the network",
            expected="(N, K) for N samples and K classes",
            found=f"{tuple(logits.shape)}",
            remedy="say what they are by `task`, such as next-token or segmentation",
        )
    chances = (1 - SMOOTHING) * logits.detach().double().softmax(1).cpu() + SMOOTHING / logits.shape[1]
    labels = torch.multinomial(chances, 1, generator=generator)[:, 0].to(logits.device)
    return functional.cross_entropy(logits, labels, reduction="sum")


def divergence(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """τ²·mean over rows of KL(softmax(z/τ) ‖ softmax(y/τ)) for logits (N, K) y and z."""
    # In float32 under mixed precision, too.
    own, other = (functional.log_softmax(each.float() / TEMPERATURE, dim=1) for each in (outputs, wanted))
    return TEMPERATURE**2 * functional.kl_div(own, other, reduction="batchmean", log_target=True)
