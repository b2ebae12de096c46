"""Options of a fit; importing them loads neither PyTorch nor NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import (
    Options,
    at_least,
    check_device,
    fraction,
    one_of,
    open_fraction,
    option,
    unit_interval,
)
from causalprune.base.options import positive as above_zero
from causalprune.base.units import check_bytes
from causalprune.solver.names import DEFAULT_ALPHA_RATIO, NORMALIZATIONS, SCOPES, SGD_PRESETS, SOLVERS
from causalprune.trajectory.names import GRANULARITIES


def _device(value: str) -> str | None:
    return None if value != "auto" and check_device(value) is None else "cpu, cuda or cuda:N"


_device.names = lambda: ("cpu", "cuda")  # type: ignore[attr-defined]


def _folds(value: int) -> str | None:
    return None if value == 0 or value >= 2 else "0 or at least 2"


@dataclass(frozen=True, kw_only=True)
class FitOptions(Options):
    """Which problem is solved over a recording, and how; ``fit-gamma`` has an option for each, and the same default."""

    panel = "Fit"

    solver: str = option(
        "lasso",
        "lasso: exact and certified at any size; sklearn: the same in memory; sgd: the authors' truncated gradient.",
        check=SOLVERS,
    )
    preset: str = option("june-2025", "Which of the authors' variants `solver=sgd` follows.", check=SGD_PRESETS)
    alpha: float | None = option(
        None, "L1 coefficient, in scikit-learn's scaling of the columns as normalized.", check=above_zero
    )
    alpha_ratio: float | None = option(None, "L1 coefficient as a share of alpha_max [0.1].", check=unit_interval)
    alphas: int = option(
        0,
        "Solve for so many α in equal ratios from alpha_max down; γ is that of the last, or of `cv`.",
        check=at_least(0),
    )
    alpha_min_ratio: float = option(
        0.01, "Smallest α of `alphas` and of a search, as a share of alpha_max.", check=open_fraction
    )
    target_nonzero: int | None = option(None, "Look for an α with so many nonzero γ.", check=at_least(1))
    target_sparsity: float | None = option(None, "Look for an α with this share of γ zero.", check=open_fraction)
    l1_ratio: float = option(1.0, "1: lasso; below 1: elastic net.", check=unit_interval)
    scope: str = option("global", "One fit over all layers, or one a layer.", check=one_of(SCOPES))
    granularity: str = option("parameter", "One γ per parameter, filter, neuron or layer.", check=one_of(GRANULARITIES))
    normalize: str = option(
        "none", "Scaling of the columns: none; lr (Δθ²/η²); column (unit norm).", check=one_of(NORMALIZATIONS)
    )
    positive: bool = option(False, "Only γ ≥ 0.")
    negative: bool = option(False, "Only γ ≤ 0: parameters whose steps make the loss fall.")
    lags: int | None = option(
        None, "Lags of a momentum model [1 if the recording had momentum, else 0].", check=at_least(0)
    )
    held_out: float = option(
        0.2, "Share of the steps, the last ones, on which a fit to the others is judged; 0: none.", check=fraction
    )
    cv: int = option(0, "Choose α from `alphas` by cross-validation over so many blocks of steps.", check=_folds)
    bootstrap: int = option(0, "Resamples of the steps for selection probabilities.", check=at_least(0))
    ranking: bool = option(
        True,
        "Know every KKT score exactly, though it may cost a pass; otherwise within the stated error.",
    )
    memory: str = option("2GiB", "Largest memory of the process.", check=check_bytes, affects_result=False)
    max_passes: int = option(
        10, "Passes over the store after which the exact solver gives up.", check=at_least(1), affects_result=False
    )
    tol: float = option(1e-6, "Relative duality gap to certify.", check=above_zero)
    seed: int = option(
        0,
        "Seed of the order of blocks, of resamples, and of `solver=sgd`.",
        check=at_least(0),
        panel="Seed, device and threads",
    )
    device: str = option(
        "cpu",
        "Where all columns are correlated, and held if they fit: cpu, cuda or cuda:N.",
        check=_device,
        panel="Seed, device and threads",
    )

    @classmethod
    def written_out(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """With the α that is taken when none is said."""
        values = super().written_out(stored)
        said = [values[name] for name in ("alpha", "alpha_ratio", "alphas", "target_nonzero", "target_sparsity")]
        # The authors' presets have an α of their own.
        return values if any(said) or values["solver"] == "sgd" else values | {"alpha_ratio": DEFAULT_ALPHA_RATIO}

    def check(self) -> None:
        """Reject more than one way to choose α, and options without those that they need."""
        super().check()
        ways = {
            "alpha": self.alpha,
            "alpha_ratio": self.alpha_ratio,
            "alphas": self.alphas or None,
            "target_nonzero": self.target_nonzero,
            "target_sparsity": self.target_sparsity,
        }
        given = [f"`{name}`" for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UsageError(
                " and ".join(given),
                expected="one of them",
                found="both" if len(given) == 2 else f"{len(given)} of them",
            )
        if self.positive and self.negative:
            raise UsageError("`positive` and `negative`", expected="one of them", found="both")
        if self.cv and not self.alphas:
            raise UsageError("`cv`", expected="`alphas=N` beside it, the path to choose from", found="one α")
        if self.lags is not None and self.lags > 1:
            raise UsageError("`lags`", expected="0 or 1", found=str(self.lags))
