"""The loss of each task; accuracy of a classifier and errors of a regression, in one pass over a split."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from causalprune.base.compute.runtime import Processes
from causalprune.base.errors import DataError, MismatchError
from causalprune.base.specs import Task
from causalprune.data.batches import ALONE, Batches
from causalprune.data.datasets import DataSet
from causalprune.models.modes import evaluation_mode, least_batch


def loss_function(task: Task, label_smoothing: float = 0.0) -> nn.Module:
    """Mean cross-entropy for a classification, mean squared error for a regression.

    The module takes outputs (N, classes) and int64 labels (N,), or float32 outputs and standardized targets (N, 1).
    """
    return nn.MSELoss() if task == "regression" else nn.CrossEntropyLoss(label_smoothing=label_smoothing)


def loss_value(loss: torch.Tensor, subject: str, remedy: str) -> float:
    """The value of a scalar loss.

    Raises:
        DataError: It isn't finite; ``subject`` and ``remedy`` say which loss and what to do.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise DataError(subject, expected="a finite number", found=str(value), remedy=remedy)
    return value


def evaluate_model(
    model: nn.Module,
    data: DataSet,
    split: str,
    *,
    batch_size: int,
    device: torch.device,
    amp: str = "none",
    num_workers: int = 0,
    group: Processes = ALONE,
) -> dict[str, Any]:
    """Measure ``model`` in evaluation mode, then restore the mode of every module.

    Sums are accumulated in float64, in the order of the batches, on the device: nothing is read before the end.

    Args:
        model: On ``device``; takes normalized inputs and returns (B, classes) logits, or (B, 1) for a regression.
        data: The data set.
        split: ``train``, ``validation`` or ``test``.
        batch_size: Samples per forward pass.
        device: Where to compute.
        amp: ``bf16`` for automatic mixed precision, else ``none``.
        num_workers: Worker processes for image files that don't fit in memory.
        group: The processes that share the batches, all with the same weights and buffers; all get the same numbers,
            which are those of a single process.

    Returns:
        JSON-ready: ``task``; ``samples``, N; ``loss``, the mean cross-entropy in nats, or for a regression the mean
        squared error of the standardized targets, which is what training minimizes. For a classification also:

        - ``top1``: Top-1 accuracy in [0, 1]; among equal outputs the lowest index wins.
        - ``top5``: Share of samples whose label has one of the 5 largest outputs; None with at most 5 classes, where
          it would always be 1.
        - ``guessing``: Top-1 accuracy of always predicting the split's most frequent class.
        - ``per_class``: Top-1 accuracy within each class, in label order; None for a class without samples.

        For a regression also:

        - ``mse``: Mean squared error in original units squared.
        - ``r2``: Coefficient of determination, 1 − Σ(y − ŷ)²/Σ(y − ȳ)² with ȳ over this split; None if all targets
          are equal.
        - ``mae``: Mean absolute error in original units.

    Raises:
        DataError: The model's outputs aren't finite.
        MismatchError: The outputs have the wrong shape.
    """
    batches = Batches(
        data,
        split,
        batch_size=batch_size,
        device=device,
        seed=0,
        shuffle=False,
        num_workers=num_workers,
        smallest=least_batch(
            model, training=False, size=min(batch_size, len(data.split(split))), shape=data.input_shape
        ),
    )
    sums_of = _regression_sums if data.task == "regression" else _classification_sums
    parts: list[dict[str, torch.Tensor]] = []
    steps, samples = batches.steps_per_epoch, len(data.split(split))
    # A process without a batch of its own measures one that doesn't count, and knows by it what is summed.
    first = min(group.rank, steps - 1)
    with evaluation_mode(model), torch.no_grad():
        for inputs, targets in batches.epoch(0, start=first, every=group.count):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp == "bf16"):
                outputs = model(inputs)
            if outputs.shape != (len(targets), data.num_outputs):
                raise MismatchError(
                    "outputs of the model",
                    expected=f"shape ({len(targets)}, {data.num_outputs})",
                    found=str(tuple(outputs.shape)),
                )
            parts.append(
                {"nan": outputs.isnan().sum(), "inf": outputs.isinf().sum(), **sums_of(outputs.double(), targets)}
            )
    totals = {name: _summed([part[name] for part in parts], steps, group) for name in parts[0]}
    numbers: dict[str, Any] = {name: value.tolist() for name, value in totals.items()}
    if numbers["nan"] or numbers["inf"]:
        raise DataError(
            f"outputs of the model on the {split} split",
            expected="finite numbers",
            found=f"{numbers['nan']} NaN and {numbers['inf']} infinite of {samples * data.num_outputs}",
            remedy="look for NaN in the weights, or train with a lower `lr`",
        )
    found = {"task": data.task, "samples": samples, "loss": numbers["loss"] / samples}
    if data.target_normalization is None:
        return found | _classification_metrics(numbers, samples)
    return found | _regression_metrics(numbers, samples, data.target_normalization.std.item())


def _summed(own: list[torch.Tensor], steps: int, group: Processes) -> torch.Tensor:
    """The sum over the batches, of which each process has every R-th one, in their order."""
    values = own
    if group.count > 1:
        every = own[0].new_zeros((steps, *own[0].shape))
        if group.rank < steps:
            every[group.rank :: group.count] = torch.stack(own)
        values = list(group.sum(every))
    return functools.reduce(torch.add, values)


def _classification_sums(outputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    classes = outputs.shape[1]
    of_label = outputs.gather(1, labels[:, None])
    earlier = torch.arange(classes, device=outputs.device) < labels[:, None]
    # Ranking equal outputs by index keeps a constant network from scoring on every sample.
    rank = ((outputs > of_label) | ((outputs == of_label) & earlier)).sum(1)
    # Not by torch.bincount or an index of bools, whose sizes a GPU would be asked for.
    of_class = labels[:, None] == torch.arange(classes, device=outputs.device)
    return {
        "loss": functional.cross_entropy(outputs, labels, reduction="sum"),
        "top5": (rank < 5).sum(),
        "correct": (of_class & (rank == 0)[:, None]).sum(0),
        "sizes": of_class.sum(0),
    }


def _classification_metrics(sums: dict[str, Any], samples: int) -> dict[str, Any]:
    return {
        "top1": sum(sums["correct"]) / samples,
        "top5": sums["top5"] / samples if len(sums["sizes"]) > 5 else None,
        "guessing": max(sums["sizes"]) / samples,
        "per_class": [c / n if n else None for c, n in zip(sums["correct"], sums["sizes"], strict=True)],
    }


def _regression_sums(outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    targets = targets.double()
    error = outputs - targets
    # Standardized targets have a mean near 0, so their sums lose no digits to cancellation.
    return {
        "loss": (error**2).sum(),
        "absolute": error.abs().sum(),
        "targets": targets.sum(),
        "squares": (targets**2).sum(),
    }


def _regression_metrics(sums: dict[str, Any], samples: int, scale: float) -> dict[str, Any]:
    loss = sums["loss"]
    variation = sums["squares"] - sums["targets"] ** 2 / samples
    return {
        "mse": loss / samples * scale**2,
        "r2": 1 - loss / variation if variation > 1e-12 * samples else None,
        "mae": sums["absolute"] / samples * scale,
    }
