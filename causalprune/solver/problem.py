"""The optimisation problem: which α, which mixture of penalties, which scaling of the columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causalprune.errors import DataError, UsageError
from causalprune.solver.source import ColumnSource, Float64

DEFAULT_ALPHA_RATIO = 0.1
"""α as a share of alpha_max when none is given."""

NORM_FLOOR = 1e-9
"""Columns with less than this share of the largest norm keep that floor's scale: a unit norm would promote noise."""


@dataclass(frozen=True)
class LassoProblem:
    """min_γ 1/(2T)·‖y − X̃γ̃‖² + α·ρ·‖γ̃‖₁ + α·(1 − ρ)/2·‖γ̃‖², scikit-learn's scaling, no intercept.

    X̃ = X·diag(s) are the scaled columns, γ = s·γ̃ the coefficients that are reported, in units of loss per unit of X.
    α belongs to the scaled columns. ``normalize="none"`` has s = 1; ``"column"`` has s_k = 1/‖x_k‖.

    Attributes:
        alpha: α, or None.
        alpha_ratio: α as a share of alpha_max, the smallest α with γ = 0; or None. With both None it is 0.1.
        l1_ratio: ρ in (0, 1]; 1 is the Lasso.
        normalize: Scaling of the columns.
        tol: Duality gap to reach, relative to ‖y‖²/(2T).

    Raises:
        UsageError: Values out of range.
    """

    alpha: float | None = None
    alpha_ratio: float | None = None
    l1_ratio: float = 1.0
    normalize: Literal["none", "column"] = "none"
    tol: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("alpha", "alpha_ratio", "l1_ratio", "tol"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(name, expected="a finite number above 0", found=str(value))
        if self.alpha is not None and self.alpha_ratio is not None:
            raise UsageError("alpha and alpha_ratio", expected="one of the two", found="both")
        if self.l1_ratio > 1 or (self.alpha_ratio is not None and self.alpha_ratio > 1):
            raise UsageError("l1_ratio and alpha_ratio", expected="at most 1", found="more")

    def choose_alpha(self, alpha_max: float) -> float:
        """α, given alpha_max."""
        if self.alpha is not None:
            return self.alpha
        return (self.alpha_ratio or DEFAULT_ALPHA_RATIO) * alpha_max


@dataclass(frozen=True, eq=False)
class Scan:
    """What one pass over the columns finds.

    Attributes:
        scale: (P,) s_k in X̃ = X·diag(s); 0 for a column of zeros.
        correlation: (P,) x̃_kᵀy.
        unit: A power of two that lifts X̃ to the order of 1; 0 when every column is zero.
    """

    scale: Float64
    correlation: Float64
    unit: float


def scan(source: ColumnSource, normalize: str) -> Scan:
    """Pass over the columns once: their scales and their correlations with y, in float64.

    Raises:
        DataError: Fewer than two rows, a constant y, NaN or infinity.
    """
    y = source.target
    if source.num_rows < 2:
        found = str(source.num_rows)
        raise DataError("rows of the recording", expected="at least 2", found=found, remedy="record more steps")
    if not np.isfinite(y).all():
        raise DataError("loss change", expected="finite numbers", found="NaN or infinity")
    if np.ptp(y) == 0:
        raise DataError("loss change", expected="a loss that changes from step to step", found=f"{y[0]:g} in every row")
    norm = np.zeros(source.num_columns)
    correlation = np.zeros(source.num_columns)
    for first, block in source.blocks():
        wide = block.astype(np.float64)
        part = slice(first, first + block.shape[1])
        norm[part] = np.sqrt(np.einsum("ij,ij->j", wide, wide))
        correlation[part] = y @ wide
    if not np.isfinite(norm).all():
        raise DataError(
            f"column {int(np.flatnonzero(~np.isfinite(norm))[0])} of X",
            expected="finite numbers",
            found="NaN or infinity",
        )
    scale = np.zeros_like(norm)
    if not norm.any():
        return Scan(scale, correlation, 0.0)
    if normalize == "none":
        scale[norm > 0] = 1.0
        return Scan(scale, correlation, 2.0 ** -math.floor(math.log2(norm.max())))
    np.divide(1.0, np.maximum(norm, NORM_FLOOR * norm.max()), where=norm > 0, out=scale)
    return Scan(scale, correlation * scale, 1.0)
