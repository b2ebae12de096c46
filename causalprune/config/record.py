"""Options of ``record``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import (
    at_least,
    fraction,
    one_of,
    open_fraction,
    option,
    rate,
    unit_interval,
    writable,
)
from causalprune.base.paths import StoreUrl
from causalprune.base.units import check_interval
from causalprune.config.layers import prune_option
from causalprune.config.shared import ComputeOptions, LeaseOptions, store_option
from causalprune.data.names import AUGMENTATIONS
from causalprune.pruning.names import SAMPLES
from causalprune.training.options import DEFAULT_HOLD_SHARE, log_option
from causalprune.trajectory.names import CODECS

LOSS_CHANGES = ("same-batch", "next-batch")


@dataclass(frozen=True, kw_only=True)
class RecordConfig(LeaseOptions, ComputeOptions):
    """Run plain SGD and record every step.

    Example: causalprune record --epochs 5
    """

    panel = "Recording"
    first = "epochs steps batch_size lr momentum stride hold codec layer_statistics prune store dry_run"

    epochs: int = option(5, "Epochs to record.", check=at_least(1))
    steps: int | None = option(None, "Optimizer steps to record, instead of epochs.", check=at_least(1))
    batch_size: int = option(64, "Minibatch size.", check=at_least(1))
    lr: float = option(0.01, "Learning rate of the recording.", check=rate)
    momentum: float = option(0.0, "Momentum of the recording; above 0 the fit needs lags.", check=fraction)
    loss_change: str = option(
        "same-batch", "Loss change of a step: on the same minibatch, or to the next one.", check=one_of(LOSS_CHANGES)
    )
    stride: int = option(1, "Optimizer steps in one row.", check=at_least(1))
    label_smoothing: float = option(
        0.0, "Label smoothing of the loss that is recorded, of a task with classes.", check=fraction, formerly=0.0
    )
    hold: bool = option(
        False,
        "Take every step back once it is measured: all gradients at one point, in a network that stays as it is.",
        formerly=False,
    )
    hold_share: float = option(
        DEFAULT_HOLD_SHARE,
        "With --hold: by what share of the loss a step lowers it, to first order; it chooses the learning rates.",
        check=open_fraction,
        formerly=DEFAULT_HOLD_SHARE,
    )
    augment: str = option("none", "Augmentation while recording.", check=one_of(AUGMENTATIONS))
    codec: str = option("balanced", "How deltas are stored: bit-exact, or rounded and smaller.", check=CODECS)
    compress_threads: int | None = option(
        None,
        "Threads that compress [as many as the machine spares].",
        check=at_least(1),
        affects_result=False,
        panel="Seed, device and threads",
    )
    layer_statistics: bool = option(
        False,
        "Keep second moments of each layer's inputs and output gradients in the store, measured at the end: surgeon, "
        "rank-sum and wanda then need no data, nor does repair --from-statistics.",
        formerly=False,
    )
    prune: tuple[str, ...] = prune_option("Record, so that they can be pruned,")
    columns: float = option(
        1.0,
        "Share of each layer's weights to record, drawn at random; criteria that read the recording prune no others.",
        check=unit_interval,
        formerly=1.0,
    )
    columns_seed: int = option(
        0, "With --columns below 1: another one draws other weights.", check=at_least(0), formerly=0
    )
    columns_by_rank: bool = option(
        False,
        "Under torchrun, let each process compress and write its own weights; the file is the same.",
        affects_result=False,
        panel="Seed, device and threads",
    )
    samples: int = option(
        SAMPLES,
        "Training samples on which --layer-statistics measures; their labels aren't used.",
        check=at_least(1),
        formerly=SAMPLES,
    )
    checkpoint_every: str = option(
        "5min", "How often to save for a resume: 500steps, 10min or never.", check=check_interval, affects_result=False
    )
    log: str = log_option()
    checkpoint: Path | None = option(
        None,
        "Checkpoint to start from [run/pretrained.safetensors].",
        affects_result=False,
        panel="Files",
    )
    store: Path | StoreUrl | None = store_option(
        "Trajectory store to write, a path or s3://BUCKET/KEY [run/trajectory.zarr]."
    )
    output: Path | None = option(
        None,
        "Checkpoint to write: the weights after the recording [run/recorded.safetensors].",
        affects_result=False,
        check=writable,
        panel="Files",
    )
    dry_run: bool = option(False, "Predict rows, bytes and time; write nothing.", affects_result=False)
    force: bool = option(False, "Start although the disk seems too small.", affects_result=False, panel="Files")

    @classmethod
    def written_out(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Without the number of samples where nothing is measured on them."""
        values = super().written_out(stored)
        return {name: value for name, value in values.items() if name != "samples" or "layer_statistics" in values}

    def check(self) -> None:
        """Refuse options that mean nothing where every step is taken back."""
        super().check()
        defaults = {name: field.default for name, field in self.option_fields().items()}
        if self.columns == 1 and self.columns_seed != defaults["columns_seed"]:
            raise UsageError("`columns_seed`", expected="`columns` below 1 beside it", found="none")
        if self.columns_by_rank and self.loss_change != "same-batch":
            # A row that waits for the next minibatch is saved whole.
            raise UsageError("`columns_by_rank`", expected="`loss_change=same-batch`", found=self.loss_change)
        if not self.hold:
            if self.hold_share != defaults["hold_share"]:
                raise UsageError("`hold_share`", expected="`hold` beside it", found="none")
            return
        reasons = dict.fromkeys(("momentum", "loss_change", "stride"), "every step is taken back")
        for name, reason in {"lr": "`hold_share` decides how far a step goes", **reasons}.items():
            if getattr(self, name) != defaults[name]:
                raise UsageError(f"`hold` and `{name}`", expected=f"one of them, because {reason}", found="both")
