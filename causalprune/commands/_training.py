"""What ``pretrain`` and ``posttrain`` share: train a network, save for a resume, write its best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from causalprune.base.compute.runtime import emulates_bfloat16, processes
from causalprune.base.progress import Reporter
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._findings import training_findings
from causalprune.commands._output import StageResult
from causalprune.data.datasets import DataSet
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo, read_checkpoint_info
from causalprune.models.extra_state import is_extra_state
from causalprune.models.mask import Mask
from causalprune.training.distillation import Distillation
from causalprune.training.loop import TrainingSnapshot, train


@dataclass(frozen=True, kw_only=True)
class TrainingResult(StageResult):
    """Result of pretrain or posttrain.

    Attributes:
        best_epoch: The epoch (from 1) whose weights were kept; 0 if none was trained.
        validation: Metrics of these weights on the validation split.
        sparsity: Fraction of prunable weights that are pruned.
        batchnorm_samples: Training samples from which the running statistics of batch normalization were re-estimated.
        classes: What each output of a classifier stands for, in their order.
        history: ``epoch``, ``train_loss`` and ``validation``, the headline of the task, of each epoch.
    """

    best_epoch: int
    validation: dict[str, Any]
    sparsity: float
    classes: tuple[str, ...]
    batchnorm_samples: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def train_checkpoint(
    output: CheckpointOutput,
    model: nn.Module,
    data: DataSet,
    mask: Mask,
    info: CheckpointInfo,
    device: torch.device,
    reporter: Reporter,
    distillation: Distillation | None = None,
) -> TrainingResult:
    """Train ``model``, or continue where an interrupted attempt stopped, and write the checkpoint and the result file.

    Args:
        output: The checkpoint to write.
        model: On ``device``.
        data: Training and validation data.
        mask: Held throughout.
        info: Model and data of the checkpoint, and metrics to keep; the rest is filled in.
        device: Where to compute.
        reporter: Shows progress.
        distillation: Another network that sets a part of the loss; None for none.
    """
    config = output.config
    shapes = _shapes(model.state_dict())

    def fits(saved: Checkpoint) -> bool:
        return _shapes(saved.weights) == shapes and saved.info.data_fingerprint == info.data_fingerprint

    group = processes()
    saved = output.resume(reporter, fits)
    group.require_agreement("saved state", saved and saved.info.digest)
    saved_mask = mask if mask.num_pruned else None
    resume = None
    if saved is not None:
        model.load_state_dict(saved.weights)
        resume = TrainingSnapshot(saved.weights, saved.extra, saved.info.position)

    def save(snapshot: TrainingSnapshot) -> None:
        header = replace(info, position=snapshot.position)
        group.first(lambda: output.save_progress(Checkpoint(header, snapshot.weights, saved_mask, snapshot.extra)))

    if config.amp == "bf16" and emulates_bfloat16(device):
        reporter.warn("this processor has no bfloat16 instructions: training is several times slower with `amp=bf16`")
    metrics = train(
        model,
        data,
        config,
        mask=mask,
        device=device,
        seed=config.seed,
        num_workers=config.num_workers,
        distillation=distillation,
        resume=resume,
        save=save,
        stop=output.stop,
        reporter=reporter,
        description=output.stage,
        log=output.open_log(anew=saved is None),
    )
    trained = Checkpoint(replace(info, metrics=info.metrics | metrics), model.state_dict(), saved_mask)
    group.first(lambda: output.save(trained))
    return output.publish(training_result(output, read_checkpoint_info(output.path), reporter))


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor, except extra states, whose length may change."""
    return {name: (t.shape, t.dtype) for name, t in weights.items() if not is_extra_state(name)}


def training_result(
    output: CheckpointOutput, info: CheckpointInfo, reporter: Reporter, *, already_done: bool = False
) -> TrainingResult:
    """The result that the header of the checkpoint describes; warns if the network has learned nothing."""
    output.warn(reporter, *training_findings(info.metrics))
    return TrainingResult(
        **output.common(already_done=already_done),
        best_epoch=info.metrics["best_epoch"],
        validation=info.metrics["validation"],
        sparsity=info.sparsity,
        classes=info.classes,
        batchnorm_samples=info.metrics.get("batchnorm_samples", 0),
        history=info.metrics.get("history", []),
    )
