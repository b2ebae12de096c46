"""Options of ``evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.options import at_least, one_of, option, png_file, writable
from causalprune.config.shared import ComputeOptions, reestimate_option


def _odd(value: int) -> str | None:
    return None if value >= 3 and value % 2 == 1 else "an odd number of at least 3"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ComputeOptions):
    """Measure a checkpoint on the test split.

    Example: causalprune evaluate --json
    """

    panel = "Measurement"
    first = "reference cost hessian noise landscape plot output"

    checkpoint: Path | None = option(
        None, "Checkpoint to evaluate [run/final.safetensors].", affects_result=False, panel="Files"
    )
    reference: Path | None = option(
        None, "Dense checkpoint to compare with [run/pretrained.safetensors if there].", affects_result=False
    )
    batch_size: int = option(512, "Minibatch size.", check=at_least(1))
    reestimate_batchnorm: int = reestimate_option()
    hessian: int = option(
        0, "Measure so many of the largest eigenvalues of the loss Hessian, its trace and density.", check=at_least(0)
    )
    noise: bool = option(False, "Measure the loss under noise of σ from 1e-5 to 1e-1 on the unpruned parameters.")
    draws: int = option(5, "Draws of that noise.", check=at_least(1))
    landscape: bool = option(False, "Measure and draw a filter-normalized slice of the loss around the network.")
    landscape_points: int = option(21, "Points along each side of the slice, an odd number.", check=_odd)
    samples: int = option(1000, "Samples that Hessian, noise and slice are measured on.", check=at_least(1))
    flatness_split: str = option("test", "Split that these samples are of.", check=one_of(("validation", "test")))
    cost: bool = option(
        False,
        "Also measure latency and peak memory at batch 1 and 64, of a compact copy, too, where filters or neurons are "
        "wholly pruned, and bytes when compressed.",
    )
    output: Path | None = option(
        None, "Result to write [run/results/evaluate.json].", affects_result=False, check=writable
    )
    plot: Path | None = option(None, "Draw the result into this PNG file.", check=png_file, affects_result=False)
