"""Logs the rows of a recording from what is committed of it, so that the log never says more than the store."""

from __future__ import annotations

from causalprune.training.logs.log import STEPS, Log
from causalprune.trajectory import RecordingWriter


class LoggedRows:
    """The rows of a recording that aren't logged yet.

    Args:
        log: Takes them. A resumed recording logs anew what the store already has.
        writer: Writes the recording.
        stride: Optimizer steps in one row.
    """

    def __init__(self, log: Log, writer: RecordingWriter, stride: int) -> None:
        self._log, self._writer, self._stride = log, writer, stride
        self._rows = 0

    @property
    def behind(self) -> bool:
        """Whether rows were committed since."""
        return self._writer.rows_committed > self._rows

    def update(self) -> None:
        """Log the rows that were committed since."""
        if not self.behind:
            return
        first, steps = self._writer.committed_steps(self._rows)
        skip = self._rows - first
        columns = (steps.epoch, steps.loss_before, steps.loss_change, steps.lr, steps.grad_norm)
        rows = [
            {
                "step": (first + skip + number + 1) * self._stride,
                "epoch": int(epoch) + 1,
                "loss": float(before),
                "loss_change": float(change),
                "lr": float(lr),
                "grad_norm": float(norm),
            }
            for number, (epoch, before, change, lr, norm) in enumerate(
                zip(*(column[skip:] for column in columns), strict=True)
            )
        ]
        self._log.write(STEPS, rows)
        self._rows += len(rows)
