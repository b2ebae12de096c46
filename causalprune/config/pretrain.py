"""Options of ``pretrain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.options import option, writable
from causalprune.config.shared import ComputeOptions, DataOptions, ModelOptions
from causalprune.training.options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(ModelOptions, DataOptions, TrainingOptions, ComputeOptions):
    """Train a dense network: reach a basin of attraction.

    Example: causalprune pretrain --dataset digits --epochs 30
    """

    first = "dataset model hidden init_from epochs batch_size optimizer lr lr_schedule weight_decay patience output"

    output: Path | None = option(
        None, "Checkpoint to write [run/pretrained.safetensors].", affects_result=False, check=writable
    )
