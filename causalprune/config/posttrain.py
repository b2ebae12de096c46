"""Options of ``posttrain``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalprune.base.options import option, share, writable
from causalprune.config.shared import BatchNormOptions, ComputeOptions
from causalprune.training.options import FineTuningOptions

DISTILL_HELP = "Part of the loss that the dense network's outputs set, instead of the targets; 0 for none, 1 for all."


def without_unused(values: dict[str, Any]) -> dict[str, Any]:
    """Options written out, without ``distill`` where nothing is distilled, as in results of before it existed."""
    return values if values["distill"] else {name: value for name, value in values.items() if name != "distill"}


@dataclass(frozen=True, kw_only=True)
class PosttrainConfig(FineTuningOptions, BatchNormOptions, ComputeOptions):
    """Train the pruned network with its mask held.

    Example: causalprune posttrain --epochs 30
    """

    distill: float = option(0.0, DISTILL_HELP, check=share)
    dense: Path | None = option(
        None,
        "Checkpoint of the network before pruning, for --distill [run/pretrained.safetensors].",
        affects_result=False,
    )
    checkpoint: Path | None = option(None, "Checkpoint to start from [run/pruned.safetensors].", affects_result=False)
    output: Path | None = option(
        None, "Checkpoint to write [run/final.safetensors].", affects_result=False, check=writable
    )

    @classmethod
    def written_out(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """See :func:`without_unused`."""
        return without_unused(super().written_out(stored))
