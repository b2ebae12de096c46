"""Options of ``posttrain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.config.shared import ComputeOptions, TrainingOptions
from causalprune.options import option


@dataclass(frozen=True, kw_only=True)
class PosttrainConfig(TrainingOptions, ComputeOptions):
    """Train the pruned network with its mask held."""

    checkpoint: Path | None = option(None, "Checkpoint to start from [run/pruned.safetensors].", identifies=False)
    output: Path | None = option(None, "Checkpoint to write [run/final.safetensors].", identifies=False)
