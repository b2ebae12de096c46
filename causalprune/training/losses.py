"""The loss of each task, and its value."""

from __future__ import annotations

import math

import torch
from torch import nn

from causalprune.base.errors import DataError
from causalprune.base.specs import Task


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
