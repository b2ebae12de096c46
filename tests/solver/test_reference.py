import numpy as np
import pytest

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError, NumericalError
from causalprune.solver.fit import fit
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.reference import (
    JUNE_2025,
    OCT_2025,
    PAPER_V1,
    TruncatedGradientPreset,
    solve_truncated_gradient,
)
from causalprune.solver.source import ArraySource


def literal(X, y, alpha, config, seed):
    """The update rule weight by weight, as METHOD and Tsuruoka et al. (2009) write it."""
    rows, columns = X.shape
    w, q, v = [0.0] * columns, [0.0] * columns, [0.0] * columns
    u, t = 0.0, 0
    mean = sum(y) / rows if config.divide_by_mean else 1.0
    y = [value / mean for value in y]
    best, stale = float("inf"), 0
    for number in range(config.max_passes):
        order = np.random.default_rng(keyed_seed(seed, "pass", number)).permutation(rows)
        error = 0.0
        for start in range(0, rows, config.batch_rows):
            batch = order[start : start + config.batch_rows]
            t += 1
            eta = config.lr / t**config.lr_decay_power
            residual = {i: sum(w[k] * X[i, k] for k in range(columns)) - y[i] for i in batch}
            error += sum(r * r for r in residual.values())
            gradient = [sum(residual[i] * X[i, k] for i in batch) / len(batch) for k in range(columns)]
            for k in range(columns):
                g = max(-1e12, min(1e12, gradient[k])) + config.weight_decay * w[k]
                v[k] = config.momentum * v[k] + g
                w[k] -= eta * v[k]
            if alpha > 0:
                u += eta * alpha
                for k in range(columns):
                    z = w[k]
                    if w[k] > 0:
                        w[k] = max(0.0, w[k] - (u + q[k]))
                    elif w[k] < 0:
                        w[k] = min(0.0, w[k] + (u - q[k]))
                    q[k] += w[k] - z
        stale = 0 if error < best else stale + 1
        best = min(best, error)
        if config.patience and stale >= config.patience:
            break
    return np.array(w) * mean


@pytest.mark.parametrize(
    "config",
    [
        TruncatedGradientPreset(lr=0.05, lr_decay_power=0.25, batch_rows=1, max_passes=3, patience=0),
        TruncatedGradientPreset(lr=0.1, lr_decay_power=0.1, batch_rows=4, max_passes=30, divide_by_mean=True),
        TruncatedGradientPreset(lr=0.02, batch_rows=5, max_passes=4, momentum=0.9, weight_decay=0.01, patience=0),
    ],
)
def test_vectorised_updates_equal_the_literal_ones(config):
    rng = np.random.default_rng(0)
    X = np.abs(rng.normal(size=(17, 6))).astype(np.float32)
    y = X.astype(np.float64) @ np.array([-1.0, 0, 0, 0.5, 0, 0]) - 0.3
    w, _ = solve_truncated_gradient(ArraySource(X, y), np.ones(6), 0.02, config, seed=7)
    np.testing.assert_allclose(w, literal(X.astype(np.float64), y, 0.02, config, seed=7), rtol=1e-9, atol=1e-12)
    assert np.isfinite(w).all()
    assert w.any()


def test_presets_are_the_authors_variants():
    june, october, paper = JUNE_2025, OCT_2025, PAPER_V1
    assert (june.lr, june.lr_decay_power, june.batch_rows, june.max_passes, june.patience) == (0.1, 0.1, 16, 30, 2)
    assert (june.divide_by_lr, october.divide_by_lr, paper.divide_by_lr) == (True, True, False)
    assert june.alpha_times_columns == 1e-3
    assert (october.lr, october.momentum, october.weight_decay, october.stop_r2) == (0.1, 0.9, 0.01, 0.95)
    assert (paper.lr, paper.lr_decay_power, paper.batch_rows, paper.divide_by_mean) == (1e-2, 0.25, 1, False)


def test_the_authors_fit_is_never_called_certified():
    rng = np.random.default_rng(0)
    X, y = np.abs(rng.normal(size=(20, 50))) * 1e-3, -np.abs(rng.normal(size=20))
    result = fit(ArraySource(X, y), LassoProblem(), solver="sgd")
    assert not result.evidence.certified
    assert result.evidence.relative_gap > 1e-6


def test_the_gap_is_that_of_the_problem_which_was_solved_after_y_was_divided():
    rng = np.random.default_rng(0)
    X, y = np.abs(rng.normal(size=(20, 50))) * 1e-3, -7 * np.abs(rng.normal(size=20))
    result = fit(ArraySource(X, y), LassoProblem(), solver="sgd")
    assert result.evidence.alpha == pytest.approx(abs(y.mean()) * 1e-3 / 50)
    given = fit(ArraySource(X, y), LassoProblem(alpha=result.evidence.alpha), solver="sgd")
    np.testing.assert_array_equal(given.gamma, result.gamma)


def test_a_fit_worse_than_no_fit_at_all_is_warned_of():
    rng = np.random.default_rng(0)
    X, y = np.abs(rng.normal(size=(20, 50))) * 100, np.abs(rng.normal(size=20))
    result = fit(ArraySource(X, y), LassoProblem(), SolverOptions(preset="oct-2025"), solver="sgd")
    assert result.evidence.r2 < -1
    assert "worse than γ = 0" in result.evidence.warning


def test_divergence_is_a_numerical_error():
    rng = np.random.default_rng(0)
    config = TruncatedGradientPreset(lr=1e300, max_passes=30, patience=0)
    with pytest.raises(NumericalError, match="divergence"), np.errstate(all="ignore"):
        solve_truncated_gradient(ArraySource(rng.normal(size=(20, 5)), rng.normal(size=20)), np.ones(5), 0, config, 0)


def test_a_mean_of_zero_cannot_be_divided_by():
    X, y = np.ones((4, 3), dtype=np.float32), np.array([1.0, -1.0, 1.0, -1.0])
    with pytest.raises(DataError, match="divided by"):
        fit(ArraySource(X, y), LassoProblem(), solver="sgd")
