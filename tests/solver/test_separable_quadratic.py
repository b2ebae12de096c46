"""On L(θ) = ½ Σ h_k θ_k², plain SGD obeys ΔL = Σ γ_k Δθ_k² exactly, with γ_k = −1/η + h_k/2."""

import numpy as np

from causalprune.solver.fit import fit
from causalprune.solver.problem import LassoProblem
from causalprune.solver.source import ArraySource

CURVATURE = np.array([0.5, 1.0, 3.0, 7.0])
LR = 0.05


def recorded_steps(rows):
    """Gradient descent started from many points, so that the columns are independent."""
    theta = np.random.default_rng(0).normal(size=(rows, len(CURVATURE)))
    step = -LR * CURVATURE * theta
    loss = lambda t: 0.5 * (CURVATURE * t**2).sum(axis=1)  # noqa: E731
    return step**2, loss(theta + step) - loss(theta)


def test_the_causal_model_is_exact():
    X, y = recorded_steps(50)
    np.testing.assert_allclose(X @ (-1 / LR + CURVATURE / 2), y, rtol=1e-12)


def test_the_fit_recovers_gamma():
    X, y = recorded_steps(200)
    result = fit(ArraySource(X, y), LassoProblem(alpha_ratio=1e-9, normalize="column", tol=1e-14))
    np.testing.assert_allclose(result.gamma, -1 / LR + CURVATURE / 2, rtol=1e-4)
    assert result.evidence.r2 > 1 - 1e-9
