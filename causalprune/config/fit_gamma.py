"""Options of ``fit-gamma``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.errors import UsageError
from causalprune.base.options import option, png_file
from causalprune.base.paths import DEFAULT_FIT, StoreUrl
from causalprune.config.shared import LeaseOptions, OutputOptions, store_option
from causalprune.solver.recording.options import FitOptions


@dataclass(frozen=True, kw_only=True)
class FitGammaConfig(LeaseOptions, OutputOptions, FitOptions):
    """Fit the Granger coefficients γ of a recording.

    Example: causalprune fit-gamma --alpha-ratio 0.1
    """

    panel = "Files"
    first = "alpha_ratio alpha alphas cv target_nonzero solver normalize granularity lags bootstrap name memory"

    store: Path | StoreUrl | None = store_option("Trajectory store [run/trajectory.zarr].")
    recording: str | None = option(None, "Recording in the store [the last].")
    name: str = option(
        DEFAULT_FIT,
        "Name of the fit in the store, and in its result file: results/fit-gamma.json, of another name "
        "fit-gamma.NAME.json; beside a --store, STORE.NAME.json.",
        affects_result=False,
    )
    row_weights: Path | None = option(
        None, "Weight of each recorded step's squared error: T numbers in a .npy or text file.", affects_result=False
    )
    plot: Path | None = option(
        None, "Draw the path of --alphas into this PNG file.", check=png_file, affects_result=False
    )

    def check(self) -> None:
        """Reject a plot of a path without a path."""
        super().check()
        if self.plot is not None and not self.alphas:
            raise UsageError("`plot`", expected="`alphas=N` beside it, the path to draw", found="one α")
