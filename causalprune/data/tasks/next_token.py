"""The task ``next-token``: at each position of a text, which token comes next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from causalprune.base.specs import Headline
from causalprune.data.tasks.positions import UNLABELED, PositionTask, counts
from causalprune.data.tasks.task import Sums


@dataclass(frozen=True, eq=False)
class NextToken(PositionTask):
    """Inputs are int64 tokens (N, T), targets the tokens (N, T) one place later, outputs logits (N, T, V).

    The loss is the mean cross-entropy in nats per token. Metrics beside it:

    - ``perplexity``: exp(loss).
    - ``top1``: Share of the tokens that have the largest output; among equal ones the lowest counts.
    - ``unigram``: Perplexity of always answering with the frequencies of the split's tokens.
    """

    name: ClassVar[str] = "next-token"
    class_axis: ClassVar[int] = -1
    tokens: ClassVar[bool] = True
    headline: ClassVar[Headline] = Headline(
        "perplexity", "perplexity", "guessing by frequency", "unigram", falling=True
    )

    def output_shape(self, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(T, V)."""
        return (*target_shape, self.num_outputs)

    def sums(self, outputs: torch.Tensor, targets: torch.Tensor) -> Sums:
        """Cross-entropy, hits, and how often each token comes."""
        rows, labels = self.rows(outputs), targets.flatten()
        return {
            "loss": functional.cross_entropy(rows, labels, reduction="sum", ignore_index=UNLABELED),
            "hits": (rows.argmax(1) == labels).sum(),
            "sizes": counts(labels, labels != UNLABELED, self.num_outputs),
        }

    def summary(self, sums: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """Loss, perplexities, accuracy."""
        del samples  # A mean over tokens.
        count = sum(sums["sizes"])
        shares = [size / count for size in sums["sizes"] if size]
        loss = sums["loss"] / count
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, _LARGEST_EXPONENT)),
            "top1": sums["hits"] / count,
            "unigram": math.exp(-math.fsum(share * math.log(share) for share in shares)),
            "tokens": count,
        }


_LARGEST_EXPONENT = 700.0
"""exp of more isn't a float64."""
