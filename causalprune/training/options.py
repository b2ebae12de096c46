"""Options of training; importing them loads no PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from causalprune.base.options import (
    Options,
    at_least,
    fraction,
    not_negative,
    one_of,
    option,
    rate,
    rate_or_zero,
    unit_interval,
)
from causalprune.base.units import check_interval
from causalprune.training.names import LR_SCHEDULES, NO_LOG, OPTIMIZERS, check_log

DEFAULT_HOLD_SHARE = 3e-4
"""η‖g‖² of a held step, as a share of the loss: ``docs/recording.md`` has the measurement that chose it."""


def log_option() -> Any:
    """Declare ``log``, which all commands that train or record have."""
    return option(
        NO_LOG,
        "Write loss, learning rate, validation and sparsity per layer into logs/NAME beside the network, as curves for "
        "TensorBoard or as CSV.",
        check=check_log,
        affects_result=False,
    )


def _decay_points(value: str) -> str | None:
    try:
        points = [float(p) for p in value.split(",") if p.strip()]
    except ValueError:
        points = [math.nan]
    ok = all(0 < p < 1 for p in points) and points == sorted(points)
    return None if ok else "rising shares in (0, 1) such as 0.5,0.75"


_WARMUP = "Share of the steps in which the learning rate rises along a line to that of the schedule; 0 for none."
_CLIP = "Largest Euclidean norm of the gradient of all kept weights together; a longer one is scaled down; 0 for none."


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """How pretrain and posttrain optimize."""

    panel = "Training"

    epochs: int = option(30, "Epochs.", check=at_least(0))
    batch_size: int = option(64, "Minibatch size.", check=at_least(1))
    optimizer: str = option("sgd", "Optimizer.", check=OPTIMIZERS)
    lr: float = option(0.05, "Peak learning rate.", check=rate)
    momentum: float = option(0.9, "Momentum of sgd.", check=fraction)
    nesterov: bool = option(True, "Nesterov momentum with sgd.")
    weight_decay: float = option(5e-4, "Weight decay.", check=rate_or_zero)
    lr_schedule: str = option("cosine", "Learning-rate schedule.", check=LR_SCHEDULES)
    lr_decay: float = option(0.1, "Factor of each decay of the step schedule.", check=unit_interval)
    decay_at: str = option(
        "0.5,0.75", "Where the step schedule decays, as shares of the training.", check=_decay_points
    )
    warmup: float = option(0.0, _WARMUP, check=fraction, formerly=0.0)
    clip_norm: float = option(0.0, _CLIP, check=not_negative, formerly=0.0)
    label_smoothing: float = option(0.0, "Label smoothing.", check=fraction)
    patience: int = option(0, "Stop after this many epochs without validation progress; 0 never.", check=at_least(0))
    amp: str = option(
        "none",
        "Automatic mixed precision: faster on a GPU, and with channels-last on a CPU that has bfloat16 instructions.",
        check=one_of(("none", "bf16")),
    )
    compile: bool = option(False, "Compile the model with torch.compile.")
    channels_last: bool = option(
        False,
        "Images with the channels of a pixel side by side in memory: faster convolutions on a CPU.",
        formerly=False,
    )
    checkpoint_every: str = option(
        "5min", "How often to save for a resume: 500steps, 10min or never.", check=check_interval, affects_result=False
    )
    log: str = log_option()

    def decay_points(self) -> tuple[float, ...]:
        """``decay_at`` as numbers in (0, 1)."""
        return tuple(float(p) for p in self.decay_at.split(",") if p.strip())


@dataclass(frozen=True, kw_only=True)
class FineTuningOptions(TrainingOptions):
    """How posttrain optimizes: a network that has lost weights starts with large gradients, and dies of large steps."""

    panel = "Training"

    warmup: float = option(0.1, _WARMUP, check=fraction, formerly=0.0)
    clip_norm: float = option(1.0, _CLIP, check=not_negative, formerly=0.0)
