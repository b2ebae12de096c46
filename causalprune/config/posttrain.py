"""Options of ``posttrain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalprune.base.options import option, share, writable
from causalprune.config.shared import ComputeOptions, reestimate_option
from causalprune.training.options import FineTuningOptions


def distill_option(when: str = "In this training: ") -> Any:
    """Declare ``distill``, which ``run`` has, too."""
    return option(
        0.0,
        f"{when}share of the loss that the dense network's outputs set, instead of the targets; 0 none, 1 all.",
        check=share,
        formerly=0.0,
        panel="Training",
    )


@dataclass(frozen=True, kw_only=True)
class PosttrainConfig(FineTuningOptions, ComputeOptions):
    """Train the pruned network with its mask held.

    Example: causalprune posttrain --epochs 30
    """

    panel = "Training"
    first = "epochs batch_size optimizer lr lr_schedule weight_decay warmup clip_norm distill patience dense output"

    distill: float = distill_option()
    dense: Path | None = option(
        None,
        "Checkpoint of the network before pruning, for --distill [run/pretrained.safetensors].",
        affects_result=False,
    )
    reestimate_batchnorm: int = reestimate_option()
    checkpoint: Path | None = option(
        None, "Checkpoint to start from [run/pruned.safetensors].", affects_result=False, panel="Files"
    )
    output: Path | None = option(
        None, "Checkpoint to write [run/final.safetensors].", affects_result=False, check=writable
    )
