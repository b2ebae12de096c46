"""Options of ``evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.config.shared import ComputeOptions
from causalprune.options import at_least, option


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ComputeOptions):
    """Measure a checkpoint on the test split."""

    checkpoint: Path | None = option(None, "Checkpoint to evaluate [run/final.safetensors].", identifies=False)
    reference: Path | None = option(
        None, "Dense checkpoint to compare with [run/pretrained.safetensors if there].", identifies=False
    )
    batch_size: int = option(512, "Minibatch size.", check=at_least(1))
    output: Path | None = option(None, "Result to write [run/results/evaluate.json].", identifies=False)
    plot: Path | None = option(None, "Draw the result into this PNG file.", identifies=False)
