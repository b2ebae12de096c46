"""What a recording will take, told before it begins: steps and rows exactly, bytes and time from a real first step."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalprune.base.compute.runtime import Processes
from causalprune.base.errors import DataError
from causalprune.commands.record.loop import set_modes
from causalprune.config.record import RecordConfig
from causalprune.data.batches import Batches
from causalprune.data.datasets import DataSet
from causalprune.data.tasks.task import Task
from causalprune.models.mask import Mask
from causalprune.models.modes import least_batch
from causalprune.models.wrappers import named_parameters
from causalprune.training.pass_state import PassState
from causalprune.trajectory.columns.sample import ColumnSample
from causalprune.trajectory.shard import estimate_bytes

SCALARS_PER_ROW = 6
"""Numbers stored beside the deltas of a row, 8 bytes each."""

HELD_PASSES = 6
"""Forward passes that measuring a held step takes as long as: three in float64."""


def require_recordable(model: nn.Module, mask: Mask, subject: str) -> None:
    """Check that there is something to record.

    Raises:
        DataError: Every weight is pruned, or frozen.
    """
    if mask.num_kept == 0:
        raise DataError(subject, expected="a weight to record", found="all of them pruned")
    parameters = named_parameters(model)
    if not any(parameters[entry.name].requires_grad for entry in mask.index):
        raise DataError(subject, expected="a weight to train", found="all of them frozen (requires_grad=False)")


def recorded_columns(config: RecordConfig, mask: Mask) -> Mask:
    """What has a column: every kept weight, or the share of them that the options ask for."""
    sample = column_sample(config)
    return mask if sample is None else Mask.from_numpy(mask.index, sample.draw(mask.index, mask.numpy()))


def column_sample(config: RecordConfig) -> ColumnSample | None:
    """The share of the columns that the options ask for; None for all."""
    return None if config.columns == 1 else ColumnSample(config.columns, config.columns_seed)


def record_batches(
    config: RecordConfig, model: nn.Module, data: DataSet, device: torch.device, group: Processes
) -> Batches:
    """The minibatches that ``record`` takes its steps on.

    Raises:
        UsageError: Batches that are too small for batch normalization, or an augmentation of no images.
        DataError: Too few training samples.
    """
    return Batches(
        data,
        "train",
        batch_size=config.batch_size,
        device=device,
        seed=config.seed,
        augment=config.augment,
        num_workers=config.num_workers,
        group=group,
        smallest=least_batch(
            model,
            training=not config.hold,
            size=min(config.batch_size, len(data.train)) // group.count,
            shape=data.input_shape,
        ),
    )


def recorded_rows(config: RecordConfig, batches: Batches) -> tuple[int, int]:
    """Optimizer steps that the options ask for, and the rows that they make.

    Raises:
        DataError: Fewer rows than a fit needs.
    """
    steps = config.steps or config.epochs * batches.steps_per_epoch
    rows = steps // config.stride
    # A fit with lags can't use the first row.
    needed = 3 if config.momentum else 2
    if rows < needed:
        raise DataError(
            "recording",
            expected=f"at least {needed} rows",
            found=f"{rows} from {steps} steps at stride {config.stride}",
            remedy="record more `epochs` or `steps`, or with a smaller `stride`",
        )
    return steps, rows


@dataclass(frozen=True)
class FirstGradient:
    """The gradient of a real first step.

    Attributes:
        delta: (P_active,) float32, the step that it makes.
        step_seconds: Time for a recorded step, without writing it.
    """

    delta: npt.NDArray[np.float32]
    step_seconds: float

    def stored_bytes(self, config: RecordConfig, rows: int) -> int:
        """Bytes of a recording whose rows all compress like this one."""
        return estimate_bytes(self.delta, rows=rows, codec=config.codec) + rows * SCALARS_PER_ROW * 8

    def of_the_largest(self, count: int) -> FirstGradient:
        """The same for ``count`` columns, those that move most: a mask mostly prunes weights that don't move."""
        if count >= len(self.delta):
            return self
        largest = np.sort(np.argsort(-np.abs(self.delta), kind="stable")[:count])
        return FirstGradient(self.delta[largest], self.step_seconds)


def first_gradient(
    config: RecordConfig, model: nn.Module, columns: Mask, batches: Batches, task: Task
) -> FirstGradient:
    """Take the gradient of the first minibatch, and the time that it and the second loss need; no weight changes.

    Args:
        config: The options of ``record``.
        model: The network.
        columns: Which weights are recorded.
        batches: The minibatches.
        task: Defines the loss.
    """
    set_modes(model, hold=config.hold)
    parameters = named_parameters(model)
    batch = next(iter(batches.epoch(0)))
    state = PassState(model)
    state.save()
    with state.repeated():
        started = time.monotonic()
        task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        passed = time.monotonic()
        with torch.no_grad():
            task.loss(model, batch)
        ended = time.monotonic()
        seconds = passed - started + (HELD_PASSES if config.hold else 1) * (ended - passed)
    gradients = {entry.name: parameters[entry.name].grad for entry in columns.index}
    present = {n: torch.zeros_like(parameters[n]) if g is None else g for n, g in gradients.items()}
    flat = torch.empty(columns.index.total, device=batch[1].device)
    gradient: npt.NDArray[np.float32] = columns.index.flatten(present, out=flat).cpu().numpy()[columns.numpy()]
    model.zero_grad(set_to_none=True)
    return FirstGradient(-np.float32(config.lr) * gradient, seconds)
