"""The KKT check and the duality gap over all columns: a proof, in float64, of how far γ is from the optimum.

With X̃ the scaled columns and r = y − X̃g the residual, the objective is

    P(g) = 1/(2T)·‖r‖² + λ₁‖g‖₁ + λ₂/2·‖g‖².

**KKT score** of column j: |x̃_jᵀr − Tλ₂g_j|/(Tλ₁). At the optimum it is 1 for every active column (g_j ≠ 0) and at
most 1 for every other one. The largest score over all columns is peak/(Tλ₁); the exact solver bounds peak in
:meth:`causalprune.solver.region.Region.certify`, on a device it is computed in
:meth:`causalprune.solver.device.region.DeviceRegion.certify`, for other solvers in :func:`certify`. The scores of all
columns are stored as ``dual_correlation``, see :mod:`causalprune.solver.kkt_scores`.

**Duality gap** P(g) − D(u) for a dual feasible point u, an upper bound on P(g) − min P. The elastic net is the Lasso on
[X̃; √(Tλ₂)·I] with target [y; 0]; its residual is r_aug = (r, −√(Tλ₂)·g). The point u = c·r_aug/T is feasible for
c ≤ Tλ₁/peak, and

    D(u) = 1/T·(c·yᵀr − c²/2·‖r_aug‖²)

(Ndiaye, Fercoq, Gramfort and Salmon, 2017). c is the best value within [0, Tλ₁/peak].
"""

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
        objective: P(g).
        gap: P(g) − D(u) ≥ P(g) − min P ≥ 0; where rounding would make it negative, 0.
    """

    objective: float
    gap: float


def signed(correlations: Correlations, sign: int) -> Correlations:
    """What the KKT conditions bound by Tλ₁: |c|; c where γ ≥ 0 (``sign`` 1); −c where γ ≤ 0 (``sign`` −1)."""
    return np.abs(correlations) if sign == 0 else sign * correlations


def duality_gap(target: Float64, residual: Float64, coefficients: Float64, penalty: Penalty, peak: float) -> Gap:
    """The duality gap of coefficients g whose largest correlation is known.

    Args:
        target: (T,) y.
        residual: (T,) r = y − X̃g.
        coefficients: (n,) g, without zeros or with them.
        penalty: λ₁ and λ₂.
        peak: max_j |x̃_jᵀr − Tλ₂g_j| or an upper bound of it; with a sign constraint the largest :func:`signed` one,
            at least 0.
    """
    T = len(target)
    augmented = float(residual @ residual) + T * penalty.l2 * float(coefficients @ coefficients)
    objective = augmented / (2 * T) + penalty.l1 * float(np.abs(coefficients).sum())
    along = float(target @ residual)
    limit = T * penalty.l1 / peak if peak > 0 else np.inf
    c = min(limit, max(0.0, along / augmented)) if augmented > 0 else 0.0
    return Gap(objective, max(0.0, objective - (c * along - 0.5 * c * c * augmented) / T))


def allowed_peak(target: Float64, residual: Float64, coefficients: Float64, penalty: Penalty, goal: float) -> float:
    """The largest ``peak`` for which the gap is still at most ``goal``; 0 if there is none."""
    low, high = len(target) * penalty.l1, 2 * len(target) * penalty.l1
    if duality_gap(target, residual, coefficients, penalty, low).gap > goal:
        return 0.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        if duality_gap(target, residual, coefficients, penalty, middle).gap <= goal:
            low = middle
        else:
            high = middle
    return low


def gap_rounding(found: Gap, target: Float64, sizes: Float64, bound: float, largest_norm: float) -> float:
    """How far the computed gap may be from that of the coefficients as they are stored, by rounding in float64.

    The residual is off by about e = 2⁻⁵²·(‖y‖ + Σ‖x̃_j‖|g_j|): nothing, unless columns cancel, or the bound Tλ₁ is near
    it, as with an α near 0. That moves P by at most e‖y‖/T, yᵀr likewise, and the peak by e‖x̃‖.

    Args:
        found: The computed objective and gap.
        target: (T,) y; ‖r‖ ≤ ‖y‖ at a solution.
        sizes: (n,) ‖x̃_j‖·|g_j|.
        bound: Tλ₁.
        largest_norm: The largest ‖x̃_j‖.
    """
    length = float(np.linalg.norm(target))
    error = 2.0**-52 * (length + float(sizes.sum()))
    of_dual = max(0.0, found.objective - found.gap) * min(1.0, error * largest_norm / bound)
    return float(2 * error * length / len(target) + of_dual)


def certify(
    source: ColumnSource, scale: Float64, coefficients: Float64, residual: Float64, penalty: Penalty, sign: int = 0
) -> tuple[Gap, Float64]:
    """Compute the gap in one pass over all columns, in float64, for solvers that don't certify their result themselves.

    Args:
        source: X and y.
        scale: (P,) s in X̃ = X·diag(s).
        coefficients: (P,) g.
        residual: (T,) r = y − X̃g.
        penalty: λ₁ and λ₂.
        sign: 1: coefficients ≥ 0; −1: ≤ 0; 0: free.

    Returns:
        Objective and gap, and the (P,) correlations x̃_kᵀr − Tλ₂g_k, which the KKT conditions bound by Tλ₁.
    """
    correlation = np.empty(source.num_columns)
    for first, block in source.blocks():
        part = slice(first, first + block.shape[1])
        correlation[part] = (residual @ block.astype(np.float64)) * scale[part]
    correlation -= source.num_rows * penalty.l2 * coefficients
    peak = float(signed(correlation, sign).max(initial=0.0))
    return duality_gap(source.target, residual, coefficients, penalty, peak), correlation
