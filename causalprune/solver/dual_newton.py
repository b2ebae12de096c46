"""Solve the elastic net over the working set when more columns are active than there are rows: Newton in the dual.

With λ₂ > 0 the residual alone determines everything: g_j = S(x̃_jᵀr, Tλ₁)/(Tλ₂), S the soft threshold, and r minimizes
the strongly convex, piecewise quadratic Φ(r) = ½‖r‖² − yᵀr + Σ_j S(x̃_jᵀr, Tλ₁)²/(2Tλ₂) in T unknowns. Semismooth
Newton steps solve (I + X̃_A X̃_Aᵀ/(Tλ₂))·d = −∇Φ, A the columns above the threshold (Li, Sun and Toh, 2018).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from causalprune.solver.active_set import RestrictedSolution
from causalprune.solver.certificate import Penalty, duality_gap, signed
from causalprune.solver.source import Float64
from causalprune.solver.working_set import Positions, WorkingSet

_MAX_STEPS = 200
_SLAB = 2048


def solve_dual(
    working: WorkingSet,
    target: Float64,
    factor: Float64 | None,
    sign: int,
    penalty: Penalty,
    goal: float,
    start: Float64,
) -> RestrictedSolution:
    """Minimize 1/(2T)·‖y − X̃g‖² + λ₁‖g‖₁ + λ₂/2·‖g‖² over a working set, λ₂ > 0.

    Args:
        working: The columns.
        target: (T,) y, already multiplied by ``factor``.
        factor: (T,) √w_t of weighted rows; None where all are 1.
        sign: 1: coefficients ≥ 0; −1: ≤ 0; 0: free.
        penalty: λ₁ and λ₂.
        goal: Duality gap over the working set to reach.
        start: (T,) a residual to start from.
    """
    T = len(target)
    bound, ridge = T * penalty.l1, T * penalty.l2

    def correlate(r: Float64) -> Float64:
        return working.exact_correlation(r if factor is None else r * factor)

    def soft(r: Float64) -> Float64:
        q = correlate(r)
        if sign:
            return sign * np.maximum(sign * q - bound, 0.0)
        return np.sign(q) * np.maximum(np.abs(q) - bound, 0.0)

    def value(r: Float64, s: Float64) -> float:
        return 0.5 * float(r @ r) - float(target @ r) + float(s @ s) / (2 * ridge)

    r, s = start.copy(), soft(start)
    for _ in range(_MAX_STEPS):
        active = np.flatnonzero(s)
        g = s[active] / ridge
        model, matrix = _products(working, active, g, factor, T)
        gradient = r - target + model
        # The certificate is that of the coefficients that r implies; this is their residual.
        residual = target - model
        q = correlate(residual)
        q[active] -= ridge * g
        peak = float(signed(q, sign).max(initial=0.0))
        found = duality_gap(target, residual, g, penalty, peak)
        solution = RestrictedSolution(working.ids[active].copy(), g, residual, peak, found.objective)
        if found.gap <= goal:
            return solution
        matrix /= ridge
        matrix[np.diag_indices(T)] += 1.0
        direction = -cho_solve(cho_factor(matrix, lower=True, check_finite=False), gradient, check_finite=False)
        slope, now, step = float(gradient @ direction), value(r, s), 1.0
        while True:
            further = r + step * direction
            s_further = soft(further)
            if value(further, s_further) <= now + 1e-4 * step * slope or step < 1e-8:
                break
            step *= 0.5
        if step < 1e-8:
            return solution
        r, s = further, s_further
    return solution


def _products(
    working: WorkingSet, active: Positions, g: Float64, factor: Float64 | None, T: int
) -> tuple[Float64, Float64]:
    """X̃_A g and X̃_A X̃_Aᵀ, a slab of columns at a time."""
    model, matrix = np.zeros(T), np.zeros((T, T))
    for first in range(0, len(active), _SLAB):
        part = slice(first, first + _SLAB)
        columns = working.columns(active[part])
        if factor is not None:
            columns = columns * factor
        model += g[part] @ columns
        matrix += columns.T @ columns
    return model, matrix
