"""Options of ``diagnose``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.errors import UsageError
from causalprune.base.options import at_least, one_of, option, unit_interval, writable
from causalprune.base.paths import DEFAULT_FIT, StoreUrl
from causalprune.base.units import check_bytes
from causalprune.config.shared import ComputeOptions, store_option


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig(ComputeOptions):
    """Ask of a fit what a sceptic would: whether it predicts, is stable, and agrees with interventions.

    Example: causalprune diagnose --placebo 39
    """

    panel = "Measurement"
    first = "placebo other interventions samples fit recording output"

    checkpoint: Path | None = option(
        None,
        "Checkpoint that the recording ended with [run/recorded.safetensors].",
        affects_result=False,
        panel="Files",
    )
    store: Path | StoreUrl | None = store_option("Trajectory store [run/trajectory.zarr].")
    recording: str | None = option(None, "Recording in the store [the last].")
    fit: str = option(DEFAULT_FIT, "Fit to examine.")
    placebo: int = option(19, "Fits to permuted loss changes; 0: none.", check=at_least(0))
    other: Path | StoreUrl | None = store_option(
        "Store of another recording of the same network, with another seed, to compare γ with."
    )
    other_recording: str | None = option(None, "Recording to compare with [the last of --other].")
    other_fit: str | None = option(None, "Fit to compare with [the name of --fit].")
    interventions: int = option(
        100,
        "Single weights, and random groups of weights, to set to zero, so many of each; 0: none.",
        check=at_least(0),
    )
    group_share: float = option(0.01, "Share of the kept weights in a random group.", check=unit_interval)
    split: str = option(
        "train", "Split on which actual loss changes are measured.", check=one_of(("train", "validation"))
    )
    samples: int = option(1000, "Samples of that split.", check=at_least(1))
    batch_size: int = option(512, "Minibatch size.", check=at_least(1))
    memory: str = option(
        "2GiB",
        "Largest memory of the process for the placebo.",
        check=check_bytes,
        affects_result=False,
        panel="Seed, device and threads",
    )
    max_passes: int = option(
        10, "Passes over the store after which a fit gives up.", check=at_least(1), affects_result=False
    )
    output: Path | None = option(
        None,
        "Result to write [run/results/diagnose.json; of another --fit, diagnose.NAME.json; beside a --store, "
        "STORE.NAME.diagnose.json].",
        affects_result=False,
        check=writable,
    )

    def check(self) -> None:
        """Require another recording for the name of another fit."""
        super().check()
        if self.other is None and self.other_recording is None and self.other_fit is not None:
            raise UsageError("`other_fit`", expected="`other` or `other_recording` beside it", found="neither")
