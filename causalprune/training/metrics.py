"""Loss and accuracy of a classification, loss and errors of a regression, in one pass over a split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from causalprune.base.errors import DataError, MismatchError
from causalprune.base.specs import Task
from causalprune.data.batches import Batches
from causalprune.data.datasets import DataSet
from causalprune.models.modes import evaluation_mode

_OF_TASK = {"classification": ("top1", "top5", "guessing", "per_class"), "regression": ("mse", "r2", "mae")}


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of a network on one split; what doesn't belong to the task is None.

    Attributes:
        task: Classification or regression.
        samples: N, the size of the split.
        loss: Mean cross-entropy in nats; for a regression the mean squared error of the standardized targets, which
            is what training minimizes.
        top1: Share of samples whose label has the largest output; of equal outputs the lowest index counts.
        top5: Share whose label is among the k largest, k = max(1, min(5, classes − 1)): with all classes it would
            always be 1.
        guessing: Top-1 share of always naming the split's most frequent class.
        per_class: Top-1 share within each class, in label order; None for a class without samples.
        mse: Mean squared error in original units squared.
        r2: Coefficient of determination, 1 − Σ(y − ŷ)²/Σ(y − ȳ)² with ȳ over this split; None where all targets
            are equal.
        mae: Mean absolute error in original units.
    """

    task: Task
    samples: int
    loss: float
    top1: float | None = None
    top5: float | None = None
    guessing: float | None = None
    per_class: tuple[float | None, ...] | None = None
    mse: float | None = None
    r2: float | None = None
    mae: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The metrics of the task, JSON-ready."""
        values = asdict(self)
        result = {name: values[name] for name in ("task", "samples", "loss", *_OF_TASK[self.task])}
        if self.per_class is not None:
            result["per_class"] = list(self.per_class)
        return result


def evaluate_model(
    model: nn.Module,
    data: DataSet,
    split: str,
    *,
    batch_size: int,
    device: torch.device | str,
    amp: str = "none",
    num_workers: int = 0,
) -> Metrics:
    """Measure ``model`` in evaluation mode; afterwards every module is in the mode that it was in.

    Sums are accumulated in float64.

    Args:
        model: On ``device``; takes normalized inputs and returns (B, classes) logits, or (B, 1) for a regression.
        data: The data set.
        split: ``train``, ``validation`` or ``test``.
        batch_size: Samples at a time.
        device: Where to compute.
        amp: ``bf16`` for automatic mixed precision, else ``none``.
        num_workers: Worker processes for image files that don't fit in memory.

    Raises:
        DataError: The model's outputs aren't finite.
        MismatchError: They have another shape.
    """
    device = torch.device(device)
    batches = Batches(data, split, batch_size=batch_size, device=device, seed=0, shuffle=False, num_workers=num_workers)
    sums = _Classification(data, device) if data.task == "classification" else _Regression(data, device)
    samples, nan, inf = 0, torch.zeros_like(sums.loss), torch.zeros_like(sums.loss)
    with evaluation_mode(model), torch.no_grad():
        for inputs, targets in batches.epoch(0):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp == "bf16"):
                outputs = model(inputs)
            if outputs.shape != (len(targets), data.num_outputs):
                raise MismatchError(
                    "outputs of the model",
                    expected=f"shape ({len(targets)}, {data.num_outputs})",
                    found=str(tuple(outputs.shape)),
                )
            nan += outputs.isnan().sum()
            inf += outputs.isinf().sum()
            samples += len(targets)
            sums.add(outputs.double(), targets)
    if nan.item() or inf.item():
        raise DataError(
            f"outputs of the model on the {split} split",
            expected="finite numbers",
            found=f"{int(nan.item())} NaN and {int(inf.item())} infinite of {samples * data.num_outputs}",
            remedy="look for NaN in the weights, or train with a lower `lr`",
        )
    return sums.metrics(samples)


class _Classification:
    def __init__(self, data: DataSet, device: torch.device) -> None:
        self.classes = data.num_outputs
        self.k = max(1, min(5, self.classes - 1))
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.top_k = torch.zeros((), dtype=torch.int64, device=device)
        self.correct = torch.zeros(self.classes, dtype=torch.int64, device=device)
        self.sizes = torch.zeros_like(self.correct)

    def add(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.loss += functional.cross_entropy(outputs, labels, reduction="sum")
        own = outputs.gather(1, labels[:, None])
        earlier = torch.arange(self.classes, device=outputs.device) < labels[:, None]
        # Counting equal outputs in index order keeps a constant network from scoring on every sample.
        rank = ((outputs > own) | ((outputs == own) & earlier)).sum(1)
        self.top_k += (rank < self.k).sum()
        self.correct += torch.bincount(labels[rank == 0], minlength=self.classes)
        self.sizes += torch.bincount(labels, minlength=self.classes)

    def metrics(self, samples: int) -> Metrics:
        correct, sizes = self.correct.tolist(), self.sizes.tolist()
        return Metrics(
            task="classification",
            samples=samples,
            loss=self.loss.item() / samples,
            top1=sum(correct) / samples,
            top5=int(self.top_k.item()) / samples,
            guessing=max(sizes) / samples,
            per_class=tuple(c / n if n else None for c, n in zip(correct, sizes, strict=True)),
        )


class _Regression:
    def __init__(self, data: DataSet, device: torch.device) -> None:
        assert data.target_normalization is not None
        self.scale = data.target_normalization.std.item()
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.absolute, self.total, self.squares = (torch.zeros_like(self.loss) for _ in range(3))

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        targets = targets.double()
        error = outputs - targets
        self.loss += (error**2).sum()
        self.absolute += error.abs().sum()
        # Standardized targets have a mean near 0, so these two sums lose no digits to cancellation.
        self.total += targets.sum()
        self.squares += (targets**2).sum()

    def metrics(self, samples: int) -> Metrics:
        loss, total = self.loss.item(), self.total.item()
        variation = self.squares.item() - total**2 / samples
        return Metrics(
            task="regression",
            samples=samples,
            loss=loss / samples,
            mse=loss / samples * self.scale**2,
            r2=1 - loss / variation if variation > 1e-12 * samples else None,
            mae=self.absolute.item() / samples * self.scale,
        )
