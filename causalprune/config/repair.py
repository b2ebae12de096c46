"""Options of ``repair``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.options import at_least, option, positive, writable
from causalprune.base.paths import StoreUrl
from causalprune.base.units import check_interval
from causalprune.config.shared import ComputeOptions, store_option
from causalprune.pruning.names import REPAIR_RIDGE, SAMPLES


@dataclass(frozen=True, kw_only=True)
class RepairConfig(ComputeOptions):
    """Set the weights that a mask kept, layer by layer, so that the network computes again what the dense one did.

    Example: causalprune repair --samples 2000
    """

    samples: int = option(SAMPLES, "Training samples to repair with; their labels aren't used.", check=at_least(1))
    from_statistics: bool = option(
        False,
        "Repair without data, from what record --layer-statistics kept of the network before pruning; less exact.",
        formerly=False,
    )
    ridge: float = option(
        REPAIR_RIDGE,
        "Penalty on the change of the weights, a multiple of the mean squared input of a layer.",
        check=positive,
    )
    batch_size: int = option(
        500, "Samples in one forward pass; all of them are held at once.", check=at_least(1), affects_result=False
    )
    checkpoint_every: str = option(
        "5min", "How often to save for a resume: 10min or never.", check=check_interval, affects_result=False
    )
    checkpoint: Path | None = option(
        None, "Checkpoint to repair [run/pruned.safetensors].", affects_result=False, panel="Files"
    )
    dense: Path | None = option(
        None,
        "Checkpoint of the network before pruning [run/pretrained.safetensors; with --from-statistics "
        "run/recorded.safetensors].",
        affects_result=False,
    )
    store: Path | StoreUrl | None = store_option("Trajectory store of --from-statistics [run/trajectory.zarr].")
    output: Path | None = option(
        None, "Checkpoint to write [run/repaired.safetensors].", affects_result=False, check=writable
    )
