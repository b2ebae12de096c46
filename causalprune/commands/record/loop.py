"""The loop of ``record``: takes and records the optimizer steps, and saves its state for a resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn
from torch.optim import SGD

from causalprune.base.compute.agreement import Agreement
from causalprune.base.compute.runtime import keyed_seed, processes, seed_generators
from causalprune.base.progress import Bar
from causalprune.base.units import Interval
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.config.record import RecordConfig
from causalprune.data.batches import Batches
from causalprune.data.tasks.task import Batch, Task
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.models.modes import disable_dropout, evaluate_batchnorm
from causalprune.training.logs.rows import LoggedRows
from causalprune.training.optimizers import optimizer_tensors
from causalprune.training.recorder import Recorder


def set_modes(model: nn.Module, *, hold: bool) -> None:
    """Put a network into the mode in which it is recorded."""
    model.train()
    disable_dropout(model)
    if hold:
        # The network isn't trained, so its statistics are those that it has.
        evaluate_batchnorm(model)


@dataclass
class RecordLoop:
    """The recording loop; it can stop and save at the end of each row."""

    output: CheckpointOutput
    start: Checkpoint
    model: nn.Module
    optimizer: SGD
    mask: Mask
    batches: Batches
    recorder: Recorder
    task: Task
    logged: LoggedRows | None = None

    def run(self, step: int, steps: int, bar: Bar) -> None:
        """Record the steps ``step`` to ``steps``."""
        config: RecordConfig = self.output.config
        group, forward = processes(), processes().parallel(self.model)
        agreement = Agreement(group)
        every, last_save, saved_step = Interval.parse(config.checkpoint_every), time.monotonic(), step
        set_modes(self.model, hold=config.hold)
        bar.advance(step)
        for epoch, number, batch in self._samples(step, steps):
            seed_generators(keyed_seed(config.seed, "step", epoch, number) + group.rank, batch[1].device)
            weight = self.batches.weight(number)
            loss = self._loss(forward, batch, weight)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            measure = partial(self._mean_loss, batch, weight)
            self.recorder.step(group.sum(loss.detach() / group.count), measure, epoch=epoch, batch=number)
            step += 1
            bar.advance(1)
            if step % config.stride or step == steps:
                continue
            behind = self.logged is not None and self.logged.behind
            late = time.monotonic() - last_save >= every.seconds
            stopping, late, behind = agreement.any(bool(self.output.stop), late, behind)
            if behind:
                # If the disk is full, it is for all processes.
                group.first(self._log)
            # All processes have taken as many steps.
            if stopping or late or step - saved_step >= every.steps:
                # The store first: a saved state must never be ahead of it. All processes, which may write it together.
                self.recorder.writer.flush()
                group.first(partial(self.save, step))
                last_save, saved_step = time.monotonic(), step
                if stopping:
                    raise self.output.stop.error(f"step {step} of {steps} saved")
        if config.loss_change == "next-batch":
            for _, number, batch in self._samples(steps, steps + 1):
                self.recorder.complete(partial(self._mean_loss, batch, self.batches.weight(number)))

    def _log(self) -> None:
        if self.logged is not None:
            self.logged.update()

    def _loss(self, network: nn.Module, batch: Batch, weight: float) -> torch.Tensor:
        # In float64, because ΔL is a small difference of two losses.
        return self.task.exact_loss(network, batch) * weight

    def _mean_loss(self, batch: Batch, weight: float) -> torch.Tensor:
        """The loss over the whole minibatch, summed over the processes that share it."""
        return processes().sum(self._loss(self.model, batch, weight)) / processes().count

    def _samples(self, step: int, steps: int) -> Iterator[tuple[int, int, Batch]]:
        per_epoch = self.batches.steps_per_epoch
        for epoch in range(step // per_epoch, math.ceil(steps / per_epoch)):
            first = step - epoch * per_epoch if epoch == step // per_epoch else 0
            for number, batch in enumerate(self.batches.epoch(epoch, start=first), start=first):
                if epoch * per_epoch + number == steps:
                    return
                yield epoch, number, batch

    def save(self, step: int) -> None:
        """Save the state after so many steps for a resume; the store has their rows."""
        self._log()
        tensors, pending = self.recorder.pending()
        position = {"steps": step, "rows": self.recorder.rows, "pending": pending}
        extra = optimizer_tensors(self.model, self.optimizer) | tensors
        mask = self.mask if self.mask.num_pruned else None
        header = replace(self.start.info, position=position, metrics={})
        self.output.save_progress(Checkpoint(header, self.model.state_dict(), mask, extra))
