"""The training loss of each task."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from causalprune.specs import Task

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def loss_function(task: Task, label_smoothing: float = 0.0) -> LossFunction:
    """Mean cross-entropy for a classification, mean squared error for a regression.

    The function takes outputs (N, classes) and labels (N,), or outputs and standardised targets (N, 1).
    """
    if task == "regression":
        return functional.mse_loss
    return lambda outputs, labels: functional.cross_entropy(outputs, labels, label_smoothing=label_smoothing)


def loss_module(task: Task) -> nn.Module:
    """The same loss without label smoothing, as a module whose value is a mean over samples."""
    return nn.MSELoss() if task == "regression" else nn.CrossEntropyLoss()
