"""Options of ``fit-gamma``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.config.shared import GRANULARITIES, SCOPES, RuntimeOptions
from causalprune.errors import UsageError
from causalprune.options import at_least, one_of, option, positive, unit_interval
from causalprune.quantities import check_bytes

SOLVERS = ("lasso", "sgd")
SGD_PRESETS = ("paper-v1", "june-2025", "oct-2025")
NORMALIZATIONS = ("none", "lr", "column")


@dataclass(frozen=True, kw_only=True)
class FitGammaConfig(RuntimeOptions):
    """Fit the Granger coefficients γ of a recording."""

    store: Path | None = option(None, "Trajectory store [run/trajectory.zarr].", identifies=False)
    recording: str | None = option(None, "Recording in the store [the last].")
    name: str = option("default", "Name of the fit in the store.", identifies=False)
    solver: str = option(
        "lasso", "lasso: exact and certified; sgd: the authors' truncated gradient.", check=one_of(SOLVERS)
    )
    preset: str = option("june-2025", "Which of the authors' variants --solver sgd follows.", check=one_of(SGD_PRESETS))
    alpha: float | None = option(
        None, "L1 coefficient, in scikit-learn's scaling of the columns as normalised.", check=positive
    )
    alpha_ratio: float | None = option(None, "L1 coefficient as a share of alpha_max [0.1].", check=unit_interval)
    l1_ratio: float = option(1.0, "1: lasso; below 1: elastic net.", check=unit_interval)
    scope: str = option("global", "One fit over all layers, or one a layer.", check=one_of(SCOPES))
    granularity: str = option("parameter", "One γ per parameter, filter, neuron or layer.", check=one_of(GRANULARITIES))
    normalize: str = option(
        "none", "Scaling of the columns: none; lr (Δθ²/η²); column (unit norm).", check=one_of(NORMALIZATIONS)
    )
    lags: int | None = option(
        None, "Lags of a momentum model [1 if the recording had momentum, else 0].", check=at_least(0)
    )
    memory: str = option("2GiB", "Largest design matrix to hold in memory.", check=check_bytes, identifies=False)
    tol: float = option(1e-6, "Relative duality gap to certify.", check=positive)
    seed: int = option(0, "Seed of --solver sgd.", check=at_least(0))

    def check(self) -> None:
        """Only one way to say α."""
        super().check()
        if self.alpha is not None and self.alpha_ratio is not None:
            raise UsageError("--alpha and --alpha-ratio", expected="one of them", found="both")
        if self.lags is not None and self.lags > 1:
            raise UsageError("--lags", expected="0 or 1", found=str(self.lags))
