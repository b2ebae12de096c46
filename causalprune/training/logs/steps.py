"""Collects the losses of training steps on the device, and logs them together: reading each would cost a transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import torch

from causalprune.base.compute.runtime import Processes
from causalprune.models.mask import Mask
from causalprune.training.logs.log import EPOCHS, STEPS, Log, OpenLog, write_layers

AT_ONCE = 50
"""Steps that are logged together."""


class LoggedSteps:
    """The log of a training, and the steps that aren't logged yet. As a context manager it closes the log.

    Args:
        open_log: Opens the log, in the first process; None, in all processes, for none.
        group: The processes that train together; each has a part of every loss.
    """

    def __init__(self, open_log: OpenLog | None, group: Processes) -> None:
        self._open_log, self._group, self._wanted = open_log, group, open_log is not None
        self._log = Log()
        self._losses: list[torch.Tensor] = []
        self._rows: list[tuple[int, int, float]] = []

    def begin(self, step: int, mask: Mask, history: Sequence[Mapping[str, float]], steps_per_epoch: int) -> None:
        """Open the log, and log what is known already: an earlier attempt may have had no log, or another.

        Args:
            step: Steps taken so far.
            mask: Decides the sparsity of the layers.
            history: What :meth:`end_epoch` was told of each epoch that has ended.
            steps_per_epoch: Steps in each of them.
        """
        if self._open_log is None:
            return
        open_log = self._open_log

        def begin() -> None:
            self._log = open_log(step)
            write_layers(self._log, mask)
            ended = [{"step": number * steps_per_epoch, **epoch} for number, epoch in enumerate(history, start=1)]
            self._log.write(EPOCHS, ended)

        self._group.first(begin)

    def add(self, step: int, epoch: int, loss: torch.Tensor, lr: float) -> None:
        """Note a step: its number and that of its epoch, from 1, this process's part of the loss, the learning rate."""
        if not self._wanted:
            return
        self._losses.append(loss.detach())
        self._rows.append((step, epoch, lr))
        if len(self._rows) == AT_ONCE:
            self.flush()

    def end_epoch(self, step: int, epoch: Mapping[str, float]) -> None:
        """Log the epoch that ends with a step: ``epoch``, from 1, ``train_loss`` and ``validation``."""
        if self._wanted:
            self._write(EPOCHS, [{"step": step, **epoch}])

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._group.first(self._log.close)
        else:
            self._log.__exit__(kind, error, trace)

    def _write(self, table: str, rows: list[dict[str, float]]) -> None:
        # If the disk is full, it is for all processes.
        self._group.first(lambda: self._log.write(table, rows))
