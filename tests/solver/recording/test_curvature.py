"""On a separable quadratic ΔL = Σ_g (−1/η + h_g/2)·x_g is exact, so h and its interval are known."""

import numpy as np
import pytest

from causalprune.base.errors import DataError
from causalprune.solver.recording.curvature import implied_curvature, step_sizes

CURVATURE = np.array([0.5, 1.0, 3.0, 7.0])
LR = 0.05


def quadratic_steps(rows, seed=0, noise=0.0):
    """Gradient descent on ½Σ h θ² started from many points; noise as a share of the mean |ΔL|."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(rows, len(CURVATURE)))
    x = (LR * CURVATURE * theta) ** 2
    loss_change = 0.5 * (CURVATURE * ((1 - LR * CURVATURE) ** 2 - 1) * theta**2).sum(axis=1)
    return x, loss_change + noise * np.abs(loss_change).mean() * rng.normal(size=rows)


def test_the_curvature_of_a_separable_quadratic_is_exact():
    found = implied_curvature(*quadratic_steps(60), LR)
    np.testing.assert_allclose(found.curvature, CURVATURE, rtol=1e-9)
    np.testing.assert_allclose(step_sizes(found.curvature), 1 / CURVATURE, rtol=1e-9)
    np.testing.assert_allclose(found.low, CURVATURE, rtol=1e-8)
    np.testing.assert_allclose(found.high, CURVATURE, rtol=1e-8)
    assert not found.collinear.any()


def test_it_is_least_squares():
    x, y = quadratic_steps(80, noise=0.2)
    gamma = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(implied_curvature(x, y, LR).curvature, 2 * (gamma + 1 / LR), rtol=1e-8)
    weights = np.random.default_rng(1).uniform(0.1, 2, 80)
    root = np.sqrt(weights)
    gamma = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
    found = implied_curvature(x, y, LR, weights=weights)
    np.testing.assert_allclose(found.curvature, 2 * (gamma + 1 / LR), rtol=1e-8)


def test_the_interval_covers_as_often_as_it_says():
    covered = []
    for seed in range(60):
        found = implied_curvature(*quadratic_steps(200, seed, noise=0.05), LR, seed=seed)
        covered.append((found.low <= CURVATURE) & (found.high >= CURVATURE))
    # 240 intervals, those of one recording dependent; percentiles of a bootstrap are a little narrow.
    assert 0.87 <= np.mean(covered) <= 0.99


def test_what_other_parameters_moved_is_told_apart():
    x, y = quadratic_steps(100)
    found = implied_curvature(x[:, 1:], y, LR, others=x[:, 0])
    np.testing.assert_allclose(found.curvature, CURVATURE[1:], rtol=1e-8)


def test_still_and_collinear_groups_have_no_curvature():
    x, y = quadratic_steps(60)
    design = np.column_stack([x[:, 0], x[:, 1] / 2, x[:, 1] / 2, x[:, 2:], np.zeros(60)]).astype(np.float32)
    found = implied_curvature(design, y, LR)
    assert found.collinear.tolist() == [False, True, True, False, False, False]
    assert found.moved.tolist() == [True] * 5 + [False]
    assert np.isnan(found.curvature[[1, 2, 5]]).all()
    np.testing.assert_allclose(found.curvature[[0, 3, 4]], CURVATURE[[0, 2, 3]], rtol=1e-3)


def test_a_loss_that_steps_do_not_explain_has_wide_intervals():
    x, y = quadratic_steps(60)
    found = implied_curvature(x, np.random.default_rng(3).permutation(y) * 10, LR)
    assert (found.high - found.low > 2 / LR).all()


def test_too_few_steps_are_refused():
    x, y = quadratic_steps(7)
    with pytest.raises(DataError, match="at least 8, found 7"):
        implied_curvature(x, y, LR)
    with pytest.raises(DataError, match="weights that move"):
        implied_curvature(np.zeros((8, 2)), np.arange(8.0), LR)


def test_two_runs_are_equal_bit_for_bit():
    x, y = quadratic_steps(50, noise=0.1)
    first, second = implied_curvature(x, y, LR, seed=3), implied_curvature(x, y, LR, seed=3)
    assert first.low.tobytes() == second.low.tobytes()
    assert first.low.tobytes() != implied_curvature(x, y, LR, seed=4).low.tobytes()
