"""The task ``regression``: one or more quantities for each sample."""

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
from causalprune.base.specs import R2, Headline
from causalprune.data.normalization import stored, training_statistics
from causalprune.data.tasks.task import Sums, Task


@dataclass(frozen=True, eq=False)
class Regression(Task):
    """Outputs are (N, K) floats, targets (N,) or (N, K) values, each standardized for training.

    The loss is the mean squared error of the standardized targets over samples and outputs. Metrics beside it, in the
    units of the targets and each the mean over the outputs, as in scikit-learn:

    - ``mse``: Mean squared error.
    - ``r2``: Coefficient of determination, 1 − Σ(y − ŷ)²/Σ(y − ȳ)² with ȳ over the split; outputs whose targets are all
      equal don't count, and None if there is no other.
    - ``mae``: Mean absolute error.
    - ``per_output``: R² of each output, if there are several.
    """

    name: ClassVar[str] = "regression"
    headline: ClassVar[Headline] = R2

    @classmethod
    def read(
        cls, arrays: Mapping[str, np.ndarray], source: str, class_names: Any = None
    ) -> tuple[tuple[torch.Tensor, ...], Self]:
        """Read one value per sample, or a row of values."""
        del class_names  # Quantities have no classes.
        values: list[torch.Tensor] = []
        for name, array in arrays.items():
            what = f"{name} in {source}"
            if array.dtype.kind not in "buif":
                raise DataError(what, expected="numbers", found=f"dtype {array.dtype}")
            # Whether float32 is enough is decided by the training data.
            columns = stored(array.reshape(len(array), -1), what, values[0].dtype if values else None)
            values.append(columns[:, 0] if columns.shape[1] == 1 else columns)
        return tuple(values), cls()

    def fitted(self, targets: torch.Tensor, what: str) -> Self:
        """Measure mean and deviation of each output."""
        columns = targets.reshape(len(targets), -1)
        still = (columns == columns[0]).all(0)
        if bool(still.any()):
            first = int(still.nonzero()[0])
            of = f", output {first}" if columns.shape[1] > 1 else ""
            raise DataError(
                f"targets of {what}{of}", expected="values that vary", found=f"only {columns[0, first].item():g}"
            )
        return replace(self, num_outputs=columns.shape[1], target_normalization=training_statistics(columns))

    def output_shape(self, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(K,)."""
        del target_shape
        return (self.num_outputs,)

    @cached_property
    def criterion(self) -> nn.Module:
        """Mean squared error."""
        return nn.MSELoss()

    def sums(self, outputs: torch.Tensor, targets: torch.Tensor) -> Sums:
        """Errors and moments by output."""
        targets = targets.double()
        error = outputs - targets
        # Standardized targets have a mean near 0, so their sums lose no digits to cancellation.
        return {
            "loss": (error**2).sum(0),
            "absolute": error.abs().sum(0),
            "targets": targets.sum(0),
            "squares": (targets**2).sum(0),
        }

    def summary(self, sums: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """Loss, errors in original units, R²."""
        assert self.target_normalization is not None
        scales = self.target_normalization.std.tolist()
        losses, count = sums["loss"], len(scales)
        variations = [s - t**2 / samples for s, t in zip(sums["squares"], sums["targets"], strict=True)]
        scores = [
            1 - loss / variation if variation > 1e-12 * samples else None
            for loss, variation in zip(losses, variations, strict=True)
        ]
        found = [score for score in scores if score is not None]
        return {
            "loss": sum(losses) / samples / count,
            "mse": sum(loss / samples * scale**2 for loss, scale in zip(losses, scales, strict=True)) / count,
            "r2": sum(found) / len(found) if found else None,
            "mae": sum(a / samples * scale for a, scale in zip(sums["absolute"], scales, strict=True)) / count,
            **({"per_output": scores} if count > 1 else {}),
        }

    def score(self, metrics: Mapping[str, Any]) -> list[float]:
        """R² alone; the loss says the same."""
        return super().score(metrics)[:1]

    def drawn_loss(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Half the squared error of targets drawn with variance 1 about the outputs."""
        noise = torch.randn(outputs.shape, generator=generator, dtype=torch.float32).to(outputs)
        return (outputs - (outputs.detach() + noise)).square().sum() / 2

    def distance(self, outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Mean of (y − z)²."""
        return functional.mse_loss(outputs, wanted)
