"""The loop of ``record``: from one optimizer step to the next, and what it saves on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.optim import SGD

from causalprune.base.errors import MismatchError
from causalprune.base.progress import Bar
from causalprune.base.runtime import keyed_seed, processes
from causalprune.base.signals import StopRequest
from causalprune.base.units import Interval
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.config.record import RecordConfig
from causalprune.data.batches import Batches
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.training.optimizers import optimizer_tensors
from causalprune.training.recorder import Recorder, disable_dropout
from causalprune.trajectory import RecordingReader
from causalprune.trajectory.steps import STEP_FIELDS


class DiscardingWriter:
    """The writer of the processes that don't write.

    Args:
        columns: P_active.
    """

    rows_appended = 0

    def __init__(self, columns: int) -> None:
        self._row = np.empty(columns, np.float32)

    def row(self) -> np.ndarray:
        """Memory for a row, (P_active,) float32, the same for every one."""
        return self._row

    def append(self, delta: torch.Tensor, **scalars: float) -> None:
        """Take a row and drop it."""

    def flush(self) -> None:
        """There is nothing to store."""

    finish = close = flush


class RepeatingWriter(DiscardingWriter):
    """Takes the rows of a finished recording once more, so that its deleted checkpoint can be made again.

    Nothing is written. The losses, the gradient's norm and the other scalars of each row must be the stored ones, bit
    for bit; another step would change the loss after it.

    Args:
        reader: The recording.
        rows: Rows that were taken earlier.
    """

    def __init__(self, reader: RecordingReader, rows: int = 0) -> None:
        super().__init__(reader.num_columns)
        self.rows_appended = rows
        self._path = reader.path
        self._stored = reader.steps.to_matrix().T.tolist()

    def append(self, delta: torch.Tensor, **scalars: float) -> None:
        """Check a row.

        Raises:
            MismatchError: Another row is stored there, or none.
        """
        del delta
        row = self.rows_appended
        if self._stored[row : row + 1] != [[float(scalars[name]) for name in STEP_FIELDS]]:
            raise MismatchError(
                f"{self._path}",
                expected="to record the same once more, because it is finished and its checkpoint is missing",
                found=f"another row {row}",
                remedy="use the device and the number of threads that it was recorded with, or pass --overwrite to "
                "replace it with its fits",
            )
        self.rows_appended += 1


@dataclass
class RecordLoop:
    """The recording loop; it can stop and save wherever a row ends."""

    output: CheckpointOutput
    start: Checkpoint
    model: nn.Module
    optimizer: SGD
    mask: Mask
    batches: Batches
    recorder: Recorder
    compute_loss: nn.Module

    def run(self, step: int, steps: int, stop: StopRequest, bar: Bar) -> None:
        """Record the steps ``step`` to ``steps``."""
        config: RecordConfig = self.output.config
        group, forward = processes(), processes().parallel(self.model)
        every, last_save, saved_step = Interval.parse(config.checkpoint_every), time.monotonic(), step
        self.model.train()
        disable_dropout(self.model)
        bar.advance(step)
        for epoch, batch, inputs, targets in self._samples(step, steps):
            torch.manual_seed(keyed_seed(config.seed, "step", epoch, batch) + group.rank)
            weight = self.batches.weight(batch)
            loss = self._loss(forward, inputs, targets, weight)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            measure = partial(self._mean_loss, inputs, targets, weight)
            self.recorder.step(group.sum(loss.detach() / group.count), measure, epoch=epoch, batch=batch)
            step += 1
            bar.advance(1)
            if step % config.stride or step == steps:
                continue
            due = step - saved_step >= every.steps or time.monotonic() - last_save >= every.seconds
            stopping, due = group.any(bool(stop), due)
            if stopping or due:
                group.first(partial(self._save, step))
                last_save, saved_step = time.monotonic(), step
                if stopping:
                    raise stop.error(f"step {step} of {steps} saved")
        if config.loss_change == "next-batch":
            for _, batch, inputs, targets in self._samples(steps, steps + 1):
                with torch.no_grad():
                    self.recorder.complete(float(self._mean_loss(inputs, targets, self.batches.weight(batch))))

    def _loss(self, network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, weight: float) -> torch.Tensor:
        # In float64, because ΔL is a small difference of two losses.
        outputs = network(inputs).double()
        return self.compute_loss(outputs, targets if targets.dtype == torch.int64 else targets.double()) * weight

    def _mean_loss(self, inputs: torch.Tensor, targets: torch.Tensor, weight: float) -> torch.Tensor:
        """The loss over the whole minibatch, whoever has which part of it."""
        return processes().sum(self._loss(self.model, inputs, targets, weight)) / processes().count

    def _samples(self, step: int, steps: int) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
        per_epoch = self.batches.steps_per_epoch
        for epoch in range(step // per_epoch, math.ceil(steps / per_epoch)):
            first = step - epoch * per_epoch if epoch == step // per_epoch else 0
            for batch, (inputs, targets) in enumerate(self.batches.epoch(epoch, start=first), start=first):
                if epoch * per_epoch + batch == steps:
                    return
                yield epoch, batch, inputs, targets

    def _save(self, step: int) -> None:
        # The store first: a saved state may never be ahead of it.
        self.recorder.writer.flush()
        tensors, pending = self.recorder.pending()
        position = {"steps": step, "rows": self.recorder.rows, "pending": pending}
        extra = optimizer_tensors(self.model, self.optimizer) | tensors
        mask = self.mask if self.mask.num_pruned else None
        header = replace(self.start.info, position=position, metrics={})
        self.output.save_progress(Checkpoint(header, self.model.state_dict(), mask, extra))
