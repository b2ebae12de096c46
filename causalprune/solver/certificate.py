"""The duality gap over all columns: a proof, in float64, of how far γ is from the optimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from causalprune.solver.source import ColumnSource, Float32, Float64

Correlations = TypeVar("Correlations", Float32, Float64)


@dataclass(frozen=True)
class Penalty:
    """λ₁‖g‖₁ + λ₂/2·‖g‖² of the elastic net: λ₁ = αρ and λ₂ = α(1 − ρ).

    Attributes:
        l1: λ₁ > 0.
        l2: λ₂ ≥ 0.
    """

    l1: float
    l2: float = 0.0


@dataclass(frozen=True)
class Gap:
    """Objective and duality gap of one g.

    Attributes:
        objective: P(g) = 1/(2T)·‖r‖² + λ₁‖g‖₁ + λ₂/2·‖g‖².
        gap: P(g) − D(u), an upper bound on P(g) − min P.
    """

    objective: float
    gap: float


def signed(correlations: Correlations, sign: int) -> Correlations:
    """What the optimality conditions bound by Tλ₁: |c|, but c where γ ≥ 0 (``sign`` 1) and −c where γ ≤ 0 (−1)."""
    return np.abs(correlations) if sign == 0 else sign * correlations


def duality_gap(
    target: Float64, residual: Float64, l1_norm: float, squares: float, penalty: Penalty, peak: float
) -> Gap:
    """The gap of coefficients whose largest correlation is known.

    The elastic net is the Lasso on [X̃; √(Tλ₂)·I] with target [y; 0]; its residual is (r, −√(Tλ₂)·g). With
    u = c·(that residual)/T the dual objective is D(u) = (1/T)·(c·yᵀr − c²/2·‖r_aug‖²), c the best value within
    [0, Tλ₁/peak] (Ndiaye, Fercoq, Gramfort and Salmon, 2017).

    Args:
        target: (T,) y.
        residual: (T,) r = y − X̃g.
        l1_norm: ‖g‖₁.
        squares: ‖g‖².
        penalty: λ₁ and λ₂.
        peak: max_j |x̃_jᵀr − Tλ₂g_j| or more; without the bars, and at least 0, where coefficients are constrained to be
            positive.
    """
    T = len(target)
    augmented = float(residual @ residual) + T * penalty.l2 * squares
    objective = augmented / (2 * T) + penalty.l1 * l1_norm
    along = float(target @ residual)
    limit = T * penalty.l1 / peak if peak > 0 else np.inf
    c = min(limit, max(0.0, along / augmented)) if augmented > 0 else 0.0
    return Gap(objective, objective - (c * along - 0.5 * c * c * augmented) / T)


def allowed_peak(
    target: Float64, residual: Float64, l1_norm: float, squares: float, penalty: Penalty, goal: float
) -> float:
    """The largest ``peak`` with which the gap is still within ``goal``; 0 if there is none."""
    low, high = len(target) * penalty.l1, 2 * len(target) * penalty.l1
    if duality_gap(target, residual, l1_norm, squares, penalty, low).gap > goal:
        return 0.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        if duality_gap(target, residual, l1_norm, squares, penalty, middle).gap <= goal:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True, eq=False)
class Certificate:
    """Objective, gap and correlations of one γ.

    Attributes:
        objective: P(γ̃).
        gap: Upper bound on P(γ̃) − min P.
        correlation: (P,) x̃_kᵀr − T·λ₂·γ̃_k, what the optimality conditions bound by T·λ₁.
    """

    objective: float
    gap: float
    correlation: Float64


def certify(
    source: ColumnSource, scale: Float64, coefficients: Float64, residual: Float64, penalty: Penalty, sign: int = 0
) -> Certificate:
    """Pass over all columns once, in float64, and compute the gap; for solvers that have no certificate of their own.

    Args:
        source: X and y.
        scale: (P,) s in X̃ = X·diag(s).
        coefficients: (P,) γ̃.
        residual: (T,) r = y − X̃γ̃.
        penalty: λ₁ and λ₂.
        sign: 1: coefficients ≥ 0; −1: ≤ 0; 0: free.
    """
    correlation = np.empty(source.num_columns)
    for first, block in source.blocks():
        part = slice(first, first + block.shape[1])
        correlation[part] = (residual @ block.astype(np.float64)) * scale[part]
    correlation -= source.num_rows * penalty.l2 * coefficients
    peak = float(signed(correlation, sign).max(initial=0.0))
    l1_norm, squares = float(np.abs(coefficients).sum()), float(coefficients @ coefficients)
    found = duality_gap(source.target, residual, l1_norm, squares, penalty, peak)
    return Certificate(found.objective, found.gap, correlation)
