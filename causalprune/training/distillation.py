"""Distillation: train a network towards the outputs of another one as well as towards the targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from causalprune.base.compute.inputs import logits_of, network_outputs
from causalprune.data.tasks.task import Batch, Task
from causalprune.models.modes import evaluation_mode


@dataclass(frozen=True)
class Distillation:
    """A part of the loss that another network sets.

    Attributes:
        network: On the device; it isn't trained. It takes the same inputs and has outputs of the same shape.
        weight: W in [0, 1], its part of the loss.
    """

    network: nn.Module
    weight: float

    def loss(self, task: Task, model: nn.Module, batch: Batch) -> torch.Tensor:
        """(1 − W)·L + W·D, with D the distance of the outputs y from those of the network, z.

        Args:
            task: Defines L, the mean loss of the targets, and D, such as τ²·KL(softmax(z/τ) ‖ softmax(y/τ)) with τ = 2
                for a classification (Hinton et al., arXiv 1503.02531) and the mean of (y − z)² for a regression.
            model: The network that is trained.
            batch: The minibatch, which the network, in evaluation mode, gets as well.
        """
        inputs, _ = batch
        seen: list[Any] = []
        # The outputs that the loss is of, not those of another pass, which would draw another dropout and count twice
        # in the running statistics.
        watch = model.register_forward_hook(lambda _module, _arguments, found: seen.append(found))
        try:
            task_loss = task.loss(model, batch)
        finally:
            watch.remove()
        outputs = logits_of(seen[-1]) if seen else network_outputs(model, inputs)
        with torch.no_grad(), evaluation_mode(self.network):
            wanted = network_outputs(self.network, inputs)
        loss: torch.Tensor = (1 - self.weight) * task_loss + self.weight * task.distance(outputs, wanted)
        return loss
