"""Collects the losses of training steps on the device, and logs them together: reading each would cost a transfer."""

from __future__ import annotations

import torch

from causalprune.base.compute.runtime import Processes
from causalprune.training.logs.log import EPOCHS, STEPS, Log

AT_ONCE = 50
"""Steps that are logged together."""


class LoggedSteps:
    """The steps that aren't logged yet.

    Args:
        log: Takes them, in the first process.
        group: The processes that train together; each has a part of every loss.
        wanted: Whether anything is logged; the same in all processes.
    """

    def __init__(self, log: Log, group: Processes, *, wanted: bool) -> None:
        self._log, self._group, self._wanted = log, group, wanted
        self._losses: list[torch.Tensor] = []
        self._rows: list[tuple[int, int, float]] = []

    def add(self, step: int, epoch: int, loss: torch.Tensor, lr: float) -> None:
        """Note a step: its number and that of its epoch, from 1, this process's part of the loss, the learning rate."""
        if not self._wanted:
            return
        self._losses.append(loss.detach())
        self._rows.append((step, epoch, lr))
        if len(self._rows) == AT_ONCE:
            self.flush()

    def end_epoch(self, step: int, epoch: int, train_loss: float, validation: float) -> None:
        """Log the steps so far, and the epoch that ends with them."""
        if not self._wanted:
            return
        self.flush()
        self._write(EPOCHS, [{"step": step, "epoch": epoch, "train_loss": train_loss, "validation": validation}])

    def flush(self) -> None:
        """Log what isn't logged yet; all processes have taken as many steps."""
        if not self._rows:
            return
        losses = self._group.sum(torch.stack(self._losses).double()).tolist()
        rows = [
            {"step": step, "epoch": epoch, "loss": loss, "lr": lr}
            for (step, epoch, lr), loss in zip(self._rows, losses, strict=True)
        ]
        self._write(STEPS, rows)
        self._losses.clear()
        self._rows.clear()

    def _write(self, table: str, rows: list[dict[str, float]]) -> None:
        # If the disk is full, it is for all processes.
        self._group.first(lambda: self._log.write(table, rows))
