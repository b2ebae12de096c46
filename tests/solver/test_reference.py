from dataclasses import replace

import numpy as np
import pytest

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError, NumericalError
from causalprune.solver.fit import fit
from causalprune.solver.names import SGD_PRESETS
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.reference.truncated_gradient import (
    JUNE_2025,
    TruncatedGradientPreset,
    solve_truncated_gradient,
)
from causalprune.solver.source import ArraySource


def truncated(w, q, u, gradient, eta, alpha):
    """One update of Tsuruoka et al. (2009), weight by weight; w and q change, the next u is returned."""
    u += eta * alpha
    for k in range(len(w)):
        half = w[k] - eta * max(-1e12, min(1e12, gradient[k]))
        if half > 0:
            w[k] = max(0.0, half - (u + q[k]))
        elif half < 0:
            w[k] = min(0.0, half + (u - q[k]))
        else:
            w[k] = half
        q[k] += w[k] - half
    return u


def orders(rows, size, seed, number):
    """The minibatches of a pass, in the order in which ours takes the rows of a block that it reads."""
    order = np.random.default_rng(keyed_seed(seed, "pass", number)).permutation(rows)
    return [order[start : start + size] for start in range(0, rows, size)]


def prediction(X, w, i):
    return sum(w[k] * X[i][k] for k in range(len(w)))


def paper_v1(X, y, seed):
    """September 2024: ½(y_i − x_iᵀw)² of one row at a time, α = 1e-14; the sum over a pass decides."""
    rows, columns = len(X), len(X[0])
    w, q, u, t = [0.0] * columns, [0.0] * columns, 0.0, 0
    best, without, passes = float("inf"), 0, 0
    for number in range(1000):
        passes += 1
        total = 0.0
        for (i,) in orders(rows, 1, seed, number):
            t += 1
            residual = prediction(X, w, i) - y[i]
            total += 0.5 * residual**2
            u = truncated(w, q, u, [residual * X[i][k] for k in range(columns)], 0.01 / t**0.25, 1e-14)
        without = without + 1 if total > best - 1e-4 else 0
        best = min(best, total)
        if without >= 2:
            return w, passes, "patience"
    return w, passes, "passes"


def june_2025(X, y, seed, weights):
    """June 2025: the mean squared error of 16 rows of y/ȳ, α = 1e-3 over all prunable weights; the best pass counts."""
    rows, columns = len(X), len(X[0])
    mean = sum(y) / rows
    w, q, u, t = [0.0] * columns, [0.0] * columns, 0.0, 0
    best, best_w, without, passes = float("inf"), None, 0, 0
    for number in range(30):
        passes += 1
        losses = []
        for batch in orders(rows, 16, seed, number):
            t += 1
            b = len(batch)
            residual = {i: prediction(X, w, i) - y[i] / mean for i in batch}
            losses.append(sum(r**2 for r in residual.values()) / b)
            gradient = [2 / b * sum(residual[i] * X[i][k] for i in batch) for k in range(columns)]
            u = truncated(w, q, u, gradient, 0.1 / t**0.1, 1e-3 / weights)
        loss = sum(losses) / len(losses)
        without = without + 1 if loss > best - 1e-7 else 0
        if loss < best:
            best, best_w = loss, list(w)
        if without >= 2:
            return [mean * value for value in best_w], passes, "patience"
    return [mean * value for value in best_w], passes, "passes"


def oct_2025(X, y, seed):
    """October 2025: plain SGD with momentum and weight decay on the same error, no L1; R² > 0.95 stops it, too."""
    rows, columns = len(X), len(X[0])
    mean = sum(y) / rows
    w, v = [0.0] * columns, [0.0] * columns
    best, best_w, without, passes = float("inf"), None, 0, 0
    for number in range(30):
        passes += 1
        losses = []
        for batch in orders(rows, 16, seed, number):
            b = len(batch)
            residual = {i: prediction(X, w, i) - y[i] / mean for i in batch}
            losses.append(sum(r**2 for r in residual.values()) / b)
            for k in range(columns):
                v[k] = 0.9 * v[k] + 2 / b * sum(residual[i] * X[i][k] for i in batch) + 0.01 * w[k]
            w = [w[k] - 0.1 * v[k] for k in range(columns)]
        loss = sum(losses) / len(losses)
        without = without + 1 if loss > best - 1e-7 else 0
        if loss < best:
            best, best_w = loss, list(w)
        if without >= 2:
            return [mean * value for value in best_w], passes, "patience"
        residuals = [prediction(X, w, i) - y[i] / mean for i in range(rows)]
        if 1 - sum(r**2 for r in residuals) / sum((value / mean - 1) ** 2 for value in y) > 0.95:
            return [mean * value for value in best_w], passes, "r2"
    return [mean * value for value in best_w], passes, "passes"


def rows_of(spread, noise, offset):
    rng = np.random.default_rng(0)
    X = np.abs(rng.normal(size=(50, 6)) * spread).astype(np.float32)
    y = X.astype(np.float64) @ np.array([-1.0, 0, 0, -0.5, 0, 0]) / spread + offset + noise * rng.normal(size=50)
    return X, y


PATIENCE = dict.fromkeys(SGD_PRESETS, "patience")


@pytest.mark.parametrize(
    ("spread", "noise", "offset", "ends"),
    [
        # Squares of small steps, as in a recording: next to nothing is learned.
        (1e-3, 1.0, -0.3, PATIENCE),
        (1.0, 0.5, -0.3, PATIENCE),
        # Nothing but the model: the last variant stops when it explains enough.
        (0.7, 0.0, 0.0, PATIENCE | {"june-2025": "passes", "oct-2025": "r2"}),
    ],
)
@pytest.mark.parametrize("preset", SGD_PRESETS)
def test_each_variant_is_the_one_of_its_authors(preset, spread, noise, offset, ends):
    X, y = rows_of(spread, noise, offset)
    options = SolverOptions(preset=preset, seed=7, num_weights=40)
    ours = fit(ArraySource(X, y), LassoProblem(), options, solver="sgd")
    literal = {"paper-v1": paper_v1, "june-2025": june_2025, "oct-2025": oct_2025}[preset]
    rows = X.astype(np.float64).tolist()
    w, passes, end = literal(rows, y.tolist(), 7, *([40] if preset == "june-2025" else []))
    np.testing.assert_allclose(ours.gamma, w, rtol=1e-9, atol=1e-15)
    assert (ours.evidence.passes, end) == (passes, ends[preset])
    assert ours.gamma.any()


def test_the_best_pass_is_kept_and_not_the_last():
    X, y = rows_of(1.0, 0.5, -0.3)
    config = JUNE_2025
    w, passes = solve_truncated_gradient(ArraySource(X, y), np.ones(6), 0.0, config, seed=7)
    last, _ = solve_truncated_gradient(ArraySource(X, y), np.ones(6), 0.0, replace(config, keep_best=False), seed=7)
    until = replace(config, keep_best=False, patience=0)
    after = [
        solve_truncated_gradient(ArraySource(X, y), np.ones(6), 0.0, replace(until, max_passes=n), seed=7)[0]
        for n in range(1, passes + 1)
    ]
    assert (w != last).any()
    assert any((w == each).all() for each in after[:-1])


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
    # The authors' α stands beside the mean squared error, ours beside half of it.
    assert result.evidence.alpha == pytest.approx(abs(y.mean()) * 1e-3 / 50 / 2)
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
