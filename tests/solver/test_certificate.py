"""The duality gap, against the optimum that scikit-learn finds."""

import numpy as np
import pytest
from test_fit import sklearn_objective

from causalprune.solver.certificate import Penalty, allowed_peak, certify, duality_gap
from causalprune.solver.source import ArraySource


def test_the_gap_bounds_the_suboptimality_of_any_coefficients():
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(15, 40)).astype(np.float32), rng.normal(size=15)
    source, ones = ArraySource(X, y), np.ones(40)
    alpha = 0.1 * np.abs(X.T.astype(np.float64) @ y).max() / 15
    best = sklearn_objective(X, y, alpha, 1.0)
    for _ in range(20):
        gamma = rng.normal(size=40) * (rng.random(40) < 0.2)
        found, correlation = certify(source, ones, gamma, y - X.astype(np.float64) @ gamma, Penalty(alpha))
        assert found.objective - found.gap <= best + 1e-9
        np.testing.assert_allclose(correlation, (y - X.astype(np.float64) @ gamma) @ X.astype(np.float64), atol=1e-12)


def test_the_allowed_peak_is_the_largest_with_which_the_gap_is_within_the_goal():
    rng = np.random.default_rng(6)
    X, y, g = rng.normal(size=(20, 5)), rng.normal(size=20), 0.01 * rng.normal(size=5)
    facts = (y, y - X @ g, g, Penalty(0.3, 0.1))
    bound = 20 * 0.3
    assert allowed_peak(*facts, duality_gap(*facts, 1.5 * bound).gap) == pytest.approx(1.5 * bound)
    assert allowed_peak(*facts, duality_gap(*facts, bound).gap - 1e-6) == 0.0
