"""A row of a recording, from the gradient of its first step to the loss after its last one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from causalprune.training.metrics import loss_value
from causalprune.training.optimizer_groups import OptimizerGroups, gradient_norm
from causalprune.training.ranks import Writer
from causalprune.training.step_losses import Measure
from causalprune.trajectory.steps.learning_rates import group_scalars


@dataclass
class Row:
    """A row whose loss after its steps isn't known yet. Losses and norms on a GPU stay there.

    Attributes:
        loss_before: L(θ) of the minibatch; NaN until it is known.
        lr: Learning rate of its first step.
        epoch: Epoch of the minibatch.
        batch: Number of the minibatch in the epoch.
        grad_norm: ‖g‖ at its first step.
        steps: How many of its steps have been taken.
        delta: (own columns,) Δθ of all its steps; None until the last one is taken.
        declared: What recordings have besides: rates and norms of several parameter groups.
        measure: Computes the loss of the minibatch; ``next-batch`` recordings need none.
    """

    loss_before: float | torch.Tensor
    lr: float
    epoch: int
    batch: int
    grad_norm: float | torch.Tensor
    steps: int = 0
    delta: torch.Tensor | None = None
    declared: dict[str, Any] = field(default_factory=dict)
    measure: Measure | None = None

    @classmethod
    def begun(cls, groups: OptimizerGroups, parameters: Iterable[nn.Parameter], epoch: int, batch: int) -> Row:
        """A row whose first step is coming.

        Args:
            groups: Have the learning rates.
            parameters: Have the gradient.
            epoch: Epoch of the minibatch.
            batch: Number of the minibatch.
        """
        row = cls(math.nan, groups.lr, epoch, batch, math.nan, declared=groups.rates())
        row.note_gradient(groups, parameters)
        return row

    def note_gradient(self, groups: OptimizerGroups, parameters: Iterable[nn.Parameter]) -> None:
        """Note the norm of the gradient as it is, and those of several parameter groups."""
        self.grad_norm = gradient_norm(parameters)
        self.declared |= groups.norms()

    def expected_change(self) -> float:
        """Σ η‖g‖² over the parameter groups: by how much its first step, of SGD, lowers the loss to first order."""
        pairs = [group_scalars(number) for number in range(len(self.declared) // 2)]
        if not pairs:
            return self.lr * float(self.grad_norm) ** 2
        return sum(float(self.declared[rate]) * float(self.declared[norm]) ** 2 for rate, norm in pairs)

    def append_to(self, writer: Writer, loss_after: float | torch.Tensor) -> None:
        """Append it, complete, to a recording."""
        assert self.delta is not None
        writer.append(
            self.delta,
            loss_before=self.loss_before,
            loss_after=loss_after,
            lr=self.lr,
            epoch=self.epoch,
            batch=self.batch,
            grad_norm=self.grad_norm,
            **self.declared,
        )

    def saved(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All of it after its last step, as tensors and JSON; :meth:`restored` reads it back."""
        assert self.delta is not None
        state = {k: _number(v) for k, v in vars(self).items() if k not in ("delta", "declared", "measure")}
        if self.declared:
            state["declared"] = {name: _number(value) for name, value in self.declared.items()}
        return {"pending/delta": self.delta.to("cpu", copy=True)}, state

    @classmethod
    def restored(cls, tensors: dict[str, torch.Tensor], state: dict[str, Any], device: torch.device) -> Row:
        """The row of which :meth:`saved` returned ``tensors`` and ``state``."""
        return cls(**state, delta=tensors["pending/delta"].to(device))


def row_memory(writer: Writer, device: torch.device) -> torch.Tensor | None:
    """The writer's memory of the coming row, (own columns,) float32; None on a GPU, from which it copies the row."""
    return torch.from_numpy(writer.row()) if device.type == "cpu" else None


def checked_thoroughly(row: int) -> bool:
    """Whether a row, counted from 0, is 0, 1, 2, 4, 8 and so on: for checks that would cost too much at each."""
    return not row & (row - 1)


def _number(value: Any) -> Any:
    """A value of a row, read from its device."""
    if not isinstance(value, torch.Tensor):
        return value
    return loss_value(value, "loss while recording", remedy="lower `lr` of the recording")
