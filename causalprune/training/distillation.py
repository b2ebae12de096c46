"""Distillation: train a network towards the outputs of another one as well as towards the targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from causalprune.base.specs import Task
from causalprune.models.modes import evaluation_mode

TEMPERATURE = 2.0
"""τ: what the outputs of both networks are divided by, so that the small probabilities of the dense one count, too."""


@dataclass(frozen=True)
class Distillation:
    """A part of the loss that another network sets.

    Attributes:
        network: On the device; it isn't trained. It takes the same inputs and has outputs of the same shape.
        weight: W in [0, 1], its part of the loss.
    """

    network: nn.Module
    weight: float

    def loss(self, task: Task, task_loss: torch.Tensor, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """(1 − W)·``task_loss`` + W·D, with D the distance of the outputs y from those of the network, z.

        For a classification D = τ²·mean over samples of KL(softmax(z/τ) ‖ softmax(y/τ)) (Hinton et al., arXiv
        1503.02531), for a regression the mean of (y − z)².

        Args:
            task: What the outputs are.
            task_loss: Scalar loss of the targets.
            outputs: y, (N, classes) logits or (N, 1).
            inputs: Those of the minibatch, which the network, in evaluation mode, gets as well.
        """
        with torch.no_grad(), evaluation_mode(self.network):
            wanted = self.network(inputs)
        if task == "regression":
            distance = functional.mse_loss(outputs, wanted)
        else:
            # In float32 under mixed precision, too.
            own, other = (functional.log_softmax(each.float() / TEMPERATURE, dim=1) for each in (outputs, wanted))
            distance = TEMPERATURE**2 * functional.kl_div(own, other, reduction="batchmean", log_target=True)
        return (1 - self.weight) * task_loss + self.weight * distance
