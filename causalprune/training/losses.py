"""The training loss of each task."""

from __future__ import annotations

from torch import nn

from causalprune.base.specs import Task


def loss_function(task: Task, label_smoothing: float = 0.0) -> nn.Module:
    """Mean cross-entropy for a classification, mean squared error for a regression.

    The module takes outputs (N, classes) and int64 labels (N,), or float32 outputs and standardized targets (N, 1).
    """
    return nn.MSELoss() if task == "regression" else nn.CrossEntropyLoss(label_smoothing=label_smoothing)
