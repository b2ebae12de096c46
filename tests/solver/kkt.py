"""An independent check of the optimality conditions of the Lasso and the elastic net, in float64."""

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
