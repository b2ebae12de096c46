"""The training loop of pretrain and posttrain: epochs, the best one by validation, saving and resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from causalprune.base.compute.agreement import Agreement
from causalprune.base.compute.runtime import Processes, keyed_seed, processes, seed_generators
from causalprune.base.errors import CorruptError
from causalprune.base.progress import Reporter
from causalprune.base.signals import StopRequest
from causalprune.base.units import Interval
from causalprune.data.batches import ALONE, Batches
from causalprune.data.datasets import DataSet
from causalprune.models.mask import Mask
from causalprune.models.modes import least_batch
from causalprune.training.distillation import Distillation
from causalprune.training.logs.log import OpenLog
from causalprune.training.logs.steps import LoggedSteps
from causalprune.training.metrics import evaluate_model, loss_value
from causalprune.training.optimizers import (
    build_lr_schedule,
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
    restore_schedule,
    scaled_step,
    schedule_state,
    warmup_factor,
)
from causalprune.training.options import TrainingOptions

EVALUATED = 512
"""Samples in one forward pass of the validation, if a minibatch isn't larger."""


@dataclass(frozen=True)
class TrainingSnapshot:
    """Everything needed to resume, as tensors and JSON.

    Attributes:
        weights: The model's state dict.
        extra: Optimizer tensors and the best epoch's weights (``best/…``).
        position: Epoch, step within it, state of the schedule, history.
    """

    weights: dict[str, torch.Tensor]
    extra: dict[str, torch.Tensor]
    position: dict[str, Any]


@dataclass
class _Progress:
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Progress:
        """Restore what ``vars`` returned; ``TypeError`` or ``ValueError`` if the values can't be that."""
        progress = cls(**value)
        counts = (progress.epoch, progress.step, progress.best_epoch)
        numbers = [progress.loss_sum, *progress.best_score]
        for line in progress.history:
            numbers += line.values()
        if not all(type(n) is int and n >= 0 for n in counts) or not all(type(n) in (int, float) for n in numbers):
            raise ValueError(f"{value}")
        return progress


def training_batches(
    model: nn.Module,
    data: DataSet,
    options: TrainingOptions,
    *,
    device: torch.device,
    seed: int,
    num_workers: int = 0,
    group: Processes = ALONE,
) -> Batches:
    """The minibatches of :func:`train`, whose arguments these are.

    Raises:
        UsageError: A batch of one sample for batch normalization.
        DataError: Too few training samples.
    """
    return Batches(
        data,
        "train",
        batch_size=options.batch_size,
        device=device,
        seed=seed,
        augment=data.spec.augment,
        num_workers=num_workers,
        group=group,
        channels_last=options.channels_last,
        smallest=least_batch(
            model,
            training=True,
            size=min(options.batch_size, len(data.train)) // group.count,
            shape=data.input_shape,
        ),
    )


def train(
    model: nn.Module,
    data: DataSet,
    options: TrainingOptions,
    *,
    mask: Mask,
    device: torch.device,
    seed: int,
    num_workers: int = 0,
    distillation: Distillation | None = None,
    resume: TrainingSnapshot | None = None,
    save: Callable[[TrainingSnapshot], None],
    stop: StopRequest,
    reporter: Reporter,
    description: str,
    log: OpenLog | None = None,
) -> dict[str, Any]:
    """Train ``model`` in place and leave the weights of its best epoch in it.

    The order of samples, augmentation and dropout are keyed by (seed, epoch, step). On the CPU, a resumed training ends
    with the same bits as an uninterrupted one.

    Args:
        model: On ``device``.
        data: Trains on its training split, augmented as ``data.spec`` says, and chooses the epoch on its validation
            split.
        options: Optimizer, schedule, epochs and so on.
        mask: Pruned weights are exactly 0.0 after each step.
        device: Where to compute.
        seed: Key of all randomness.
        num_workers: Worker processes for data sets that don't fit in memory.
        distillation: Another network towards whose outputs the model is trained, too; None for none.
        resume: The snapshot to continue from; None starts anew.
        save: Called with a snapshot as often as ``options.checkpoint_every`` says, and before a stop.
        stop: Once set, the training ends after the current step.
        reporter: Shows progress.
        description: Label of the progress bar.
        log: Opens the log of losses, learning rates, validation and the sparsity of each layer; None for none.

    Returns:
        JSON-ready: ``best_epoch``, the epoch, counted from 1, whose weights the model has, or 0 if no epoch was
        trained; ``validation``, their metrics on the validation split (:func:`evaluate_model`); ``history``, with
        ``epoch``, ``train_loss`` and ``validation`` (the headline) of each epoch.

    Raises:
        InterruptedStage: ``stop`` was set; the snapshot is saved.
        CorruptError: ``resume`` isn't a snapshot of this training.
        UsageError: A batch of one sample for batch normalization.
        DataError: The training loss isn't finite.
    """
    group = processes()
    batches = training_batches(model, data, options, device=device, seed=seed, num_workers=num_workers, group=group)
    optimizer = build_optimizer(model, options)
    total = options.epochs * batches.steps_per_epoch
    schedule = build_lr_schedule(optimizer, options, total)
    progress, best, validation = _Progress(), dict[str, torch.Tensor](), dict[str, Any]()
    if resume is not None:
        position = dict(resume.position)
        try:
            restore_optimizer(model, optimizer, resume.extra)
            restore_schedule(optimizer, schedule, position.pop("optimizer"))
            progress = _Progress.from_json(position)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            found = f"{type(error).__name__} {error}"[:100]
            raise CorruptError("saved state", expected="a position in the training", found=found) from error
        best = {n.removeprefix("best/"): t.clone() for n, t in resume.extra.items() if n.startswith("best/")}
    hold = mask.hold(optimizer, model)
    task = replace(data.task, label_smoothing=options.label_smoothing)
    compute_loss = task.loss if distillation is None else partial(distillation.loss, task)
    parallel = group.parallel(model)
    forward: nn.Module = torch.compile(parallel) if options.compile else parallel  # type: ignore[assignment]
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.amp == "bf16")
    batch_size = max(EVALUATED, options.batch_size)

    def evaluate() -> dict[str, Any]:
        # Averages of batch normalization differ until the next forward pass, which begins with those of the first.
        group.share_first(model.buffers())
        return evaluate_model(
            model,
            data,
            "validation",
            batch_size=batch_size,
            device=device,
            amp=options.amp,
            group=group,
            channels_last=options.channels_last,
        )

    def snapshot() -> TrainingSnapshot:
        extra = optimizer_tensors(model, optimizer) | {f"best/{n}": t for n, t in best.items()}
        position = {**vars(progress), "optimizer": schedule_state(optimizer, schedule)}
        return TrainingSnapshot(model.state_dict(), extra, position)

    every = Interval.parse(options.checkpoint_every)
    last_save, steps_since_save = time.monotonic(), 0
    agreement = Agreement(group)
    begun = progress.epoch * batches.steps_per_epoch + progress.step
    generators = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with reporter.task(description, total) as bar, generators, LoggedSteps(log, group) as logged:
        logged.begin(begun, mask, progress.history, batches.steps_per_epoch)
        bar.advance(begun)
        while progress.epoch < options.epochs and not _out_of_patience(progress, options.patience):
            model.train()
            # Stays on the device: reading it at each step would cost a transfer.
            known = progress.loss_sum if group.is_first else 0.0
            loss_sum = torch.tensor(known, dtype=torch.float64, device=device)
            for batch in batches.epoch(progress.epoch, start=progress.step):
                # Each process has its own dropout; the first one's is the same as that of a single process.
                seed_generators(keyed_seed(seed, "step", progress.epoch, progress.step) + group.rank, device)
                with autocast:
                    loss = compute_loss(forward, batch)
                if group.count > 1:
                    loss = loss * batches.weight(progress.step)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if options.clip_norm:
                    # Gradients of pruned weights move nothing, so they don't count.
                    hold.gradients()
                    clip_grad_norm_(model.parameters(), options.clip_norm)
                done = progress.epoch * batches.steps_per_epoch + progress.step
                factor = warmup_factor(done, options.warmup, total)
                own_loss, rate = loss.detach() / group.count, factor * optimizer.param_groups[0]["lr"]
                logged.add(done + 1, progress.epoch + 1, own_loss, rate)
                scaled_step(optimizer, factor)
                schedule.step()
                loss_sum += own_loss
                progress.step += 1
                steps_since_save += 1
                bar.advance(1)
                stopping, late = agreement.any(bool(stop), time.monotonic() - last_save >= every.seconds)
                # All processes have taken as many steps.
                due = late or steps_since_save >= every.steps
                if stopping or (due and progress.step < batches.steps_per_epoch):
                    # First, because the steps before a loss that isn't finite are worth seeing.
                    logged.flush()
                    progress.loss_sum = _finite_loss(group.sum(loss_sum))
                    save(snapshot())
                    last_save, steps_since_save = time.monotonic(), 0
                    if stopping:
                        raise stop.error(f"epoch {progress.epoch + 1}, step {progress.step} saved")
            logged.flush()
            mean_loss = _finite_loss(group.sum(loss_sum)) / batches.steps_per_epoch
            metrics = evaluate()
            score = group.from_first(task.score(metrics))
            progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
            headline = -score[0] if task.headline.falling else score[0]
            progress.history.append({"epoch": progress.epoch, "train_loss": mean_loss, "validation": headline})
            logged.end_epoch(progress.epoch * batches.steps_per_epoch, progress.history[-1])
            if not progress.best_score or score > progress.best_score:
                progress.best_score, progress.best_epoch = score, progress.epoch
                validation = metrics
                best = {name: t.detach().clone() for name, t in model.state_dict().items()}
            bar.describe(f"loss {mean_loss:.4f}, validation {headline:.4f}")
            if any(group.any(time.monotonic() - last_save >= every.seconds or steps_since_save >= every.steps)):
                save(snapshot())
                last_save, steps_since_save = time.monotonic(), 0
    if best:
        model.load_state_dict(best)
    # Not measured again, unless the best epoch was before an interruption.
    return {"best_epoch": progress.best_epoch, "validation": validation or evaluate(), "history": progress.history}


def _out_of_patience(progress: _Progress, patience: int) -> bool:
    return patience > 0 and progress.epoch - progress.best_epoch >= patience and progress.step == 0


def _finite_loss(loss_sum: torch.Tensor) -> float:
    return loss_value(loss_sum, "training loss", remedy="lower `lr`, or look for NaN in the data")
