"""Independent checks of a Lasso or an elastic net: the optimality conditions in float64, the gap in more."""

import numpy as np


def kkt_violation(X, y, gamma, alpha, l1_ratio=1.0):
    """Largest violation of the conditions, as a share of alpha * l1_ratio.

    0 ∈ −Xᵀ(y − Xγ)/T + α(1 − ρ)γ + αρ·∂|γ|.
    """
    X, y, gamma = (np.asarray(a, dtype=np.float64) for a in (X, y, gamma))
    slope = X.T @ (y - X @ gamma) / len(y) - alpha * (1 - l1_ratio) * gamma
    bound = alpha * l1_ratio
    active = gamma != 0
    worst = 0.0
    if active.any():
        worst = np.abs(slope[active] - bound * np.sign(gamma[active])).max()
    if (~active).any():
        worst = max(worst, (np.abs(slope[~active]) - bound).max())
    return worst / bound


def true_gap(X, y, gamma, alpha, *, l1_ratio=1.0, normalize="none", sign=0):
    """Objective, and duality gap as a share of ‖y‖²/(2T), of γ in the documented problem, which is stated anew here."""
    X, y, gamma = (np.asarray(a).astype(np.longdouble) for a in (X, y, gamma))
    T, norms = len(y), np.sqrt((X**2).sum(axis=0))
    scale = np.ones_like(norms)
    if normalize == "column":
        scale = np.divide(1, norms, where=norms > 0, out=np.zeros_like(norms))
    g = np.divide(gamma, scale, where=scale > 0, out=np.zeros_like(gamma))
    l1, l2 = np.longdouble(alpha) * np.longdouble(l1_ratio), np.longdouble(alpha) * (1 - np.longdouble(l1_ratio))
    residual = y - (X * scale) @ g
    square = residual @ residual + T * l2 * (g @ g)
    objective = square / (2 * T) + l1 * np.abs(g).sum()
    slopes = (X * scale).T @ residual - T * l2 * g
    peak = max((np.abs(slopes) if sign == 0 else sign * slopes).max(), np.longdouble(0))
    share = min(T * l1 / peak if peak > 0 else np.longdouble(np.inf), max(y @ residual / square, np.longdouble(0)))
    dual = (share * (y @ residual) - share**2 * square / 2) / T
    return float(objective), float((objective - dual) / (y @ y / (2 * T)))
