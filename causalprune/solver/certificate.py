"""The duality gap over all columns: a proof, in float64, of how far γ is from the optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalprune.solver.source import ColumnSource, Float64


@dataclass(frozen=True, eq=False)
class Certificate:
    """Objective and gap of one γ.

    Attributes:
        objective: P(γ̃) = 1/(2T)·‖r‖² + αρ‖γ̃‖₁ + α(1−ρ)/2·‖γ̃‖².
        gap: P(γ̃) − D(u), an upper bound on P(γ̃) − min P.
        correlation: (P,) x̃_kᵀr − T·α·(1−ρ)·γ̃_k, what the optimality conditions bound by T·α·ρ.
    """

    objective: float
    gap: float
    correlation: Float64


def certify(
    source: ColumnSource, scale: Float64, coefficients: Float64, residual: Float64, alpha: float, l1_ratio: float
) -> Certificate:
    """Pass over all columns once and compute the duality gap of the Lasso or elastic net.

    The elastic net is the Lasso on [X̃; √(Tα(1−ρ))·I] with target [y; 0]; its residual is (r, −√(Tα(1−ρ))·γ̃). With
    u = c·(that residual)/T the dual objective is D(u) = (1/T)·(c·yᵀr − c²/2·‖r_aug‖²), c the best value within
    [0, Tαρ/max_k|correlation_k|] (Ndiaye, Fercoq, Gramfort and Salmon, 2017).

    Args:
        source: X and y.
        scale: (P,) s in X̃ = X·diag(s).
        coefficients: (P,) γ̃.
        residual: (T,) r = y − X̃γ̃.
        alpha: α.
        l1_ratio: ρ.
    """
    T, y = source.num_rows, source.target
    ridge = alpha * (1.0 - l1_ratio)
    correlation = np.empty(source.num_columns)
    for first, block in source.blocks():
        part = slice(first, first + block.shape[1])
        correlation[part] = (residual @ block.astype(np.float64)) * scale[part]
    correlation -= T * ridge * coefficients
    squares = float(coefficients @ coefficients)
    augmented = float(residual @ residual) + T * ridge * squares
    objective = augmented / (2 * T) + alpha * l1_ratio * float(np.abs(coefficients).sum())
    largest = float(np.abs(correlation).max(initial=0.0))
    limit = T * alpha * l1_ratio / largest if largest > 0 else np.inf
    best = float(y @ residual) / augmented if augmented > 0 else 0.0
    c = min(limit, max(0.0, best))
    dual = (c * float(y @ residual) - 0.5 * c * c * augmented) / T
    return Certificate(objective, objective - dual, correlation)
