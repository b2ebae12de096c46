"""Options of ``posttrain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.options import option, writable
from causalprune.config.shared import BatchNormOptions, ComputeOptions
from causalprune.training.options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class PosttrainConfig(TrainingOptions, BatchNormOptions, ComputeOptions):
    """Train the pruned network with its mask held.

    Example: causalprune posttrain --epochs 30
    """

    checkpoint: Path | None = option(None, "Checkpoint to start from [run/pruned.safetensors].", affects_result=False)
    output: Path | None = option(
        None, "Checkpoint to write [run/final.safetensors].", affects_result=False, check=writable
    )
