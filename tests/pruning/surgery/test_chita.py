"""CHITA's sparse quadratic problem, against all supports, another solver, and itself in blocks."""

from itertools import combinations

import numpy as np
import pytest

from causalprune.base.errors import DataError
from causalprune.pruning.gradients import GradientMatrix
from causalprune.pruning.surgery.chita import solve_sparse


def largest(k):
    """The projection onto ‖w‖₀ ≤ k."""

    def project(squares):
        keep = np.zeros(len(squares), dtype=bool)
        keep[np.argsort(squares, kind="stable")[len(squares) - k :]] = True
        return keep

    return project


def problem(seed, n, p, mixing=1.0):
    """Gradients of uneven size, the more correlated the more mixing, and weights."""
    rng = np.random.default_rng(seed)
    mixed = np.eye(p) + mixing * rng.normal(size=(p, p)) / np.sqrt(p)
    return rng.normal(size=(n, p)) @ mixed * rng.uniform(0.2, 2, p), rng.normal(size=p)


def optimum_on(matrix, theta, penalty, support):
    """Value and weights by least squares on the stacked system [A; √(nλ)·I]."""
    stacked = np.vstack([matrix, np.sqrt(penalty) * np.eye(len(theta))])
    weights = np.zeros(len(theta))
    weights[support] = np.linalg.lstsq(stacked[:, support], stacked @ theta, rcond=None)[0]
    return 0.5 * np.sum((stacked @ (weights - theta)) ** 2), weights


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_against_the_best_of_all_supports(mixing: float) -> None:
    """It is a local search: never below the optimum, never above the start, and mostly at the optimum."""
    p, reached = 10, []
    for seed, n, k in [(seed, n, k) for seed in range(12) for n in (8, 40) for k in (2, 4, 7)]:
        matrix, theta = problem(seed, n, p, mixing)
        _, found, _ = solve_sparse(GradientMatrix.from_array(matrix), theta, 0.1, largest(k))
        penalty = 0.1 * np.sum(matrix**2) / p
        values = {s: optimum_on(matrix, theta, penalty, list(s))[0] for s in combinations(range(p), k)}
        best, start = min(values.values()), values[tuple(np.flatnonzero(largest(k)(theta**2)))]
        assert found.keep.sum() == k
        assert found.value == pytest.approx(values[tuple(np.flatnonzero(found.keep))], rel=1e-8)
        assert best * (1 - 1e-9) <= found.value <= start * (1 + 1e-9)
        reached.append(found.value <= best * (1 + 1e-9))
    assert np.mean(reached) >= 0.75


@pytest.mark.parametrize(("n", "p"), [(5, 30), (50, 12)])
def test_the_weights_are_least_squares_on_the_support(n: int, p: int) -> None:
    matrix, theta = problem(3, n, p)
    found, support, _ = solve_sparse(GradientMatrix.from_array(matrix), theta, 0.01, largest(p // 3))
    _, weights = optimum_on(matrix, theta, 0.01 * np.sum(matrix**2) / p, np.flatnonzero(support.keep))
    assert found == pytest.approx(weights, rel=1e-6, abs=1e-9)


def test_the_support_is_what_the_projection_makes_of_the_ranking() -> None:
    matrix, theta = problem(0, 8, 40)
    _, support, iterations = solve_sparse(GradientMatrix.from_array(matrix), theta, 0.1, largest(9))
    assert iterations > 0
    assert np.array_equal(largest(9)(support.ranking), support.keep)


def test_blocks_of_columns_change_nothing() -> None:
    matrix, theta = problem(1, 20, 50)

    def read(chosen):
        wanted = np.arange(50) if chosen is None else chosen
        # The last block first: the order must not matter.
        for start in reversed(range(0, len(wanted), 7)):
            yield start, matrix[:, wanted[start : start + 7]]

    theta_whole, whole, _ = solve_sparse(GradientMatrix.from_array(matrix), theta, 0.1, largest(10))
    theta_blocks, blocks, _ = solve_sparse(GradientMatrix(20, np.arange(50), read), theta, 0.1, largest(10))
    assert np.array_equal(whole.keep, blocks.keep)
    assert theta_blocks == pytest.approx(theta_whole, rel=1e-9)


def test_with_nothing_to_prune_the_weights_stay() -> None:
    matrix, theta = problem(2, 6, 9)
    found, support, _ = solve_sparse(GradientMatrix.from_array(matrix), theta, 0.1, largest(9))
    assert np.array_equal(found, theta)
    assert support.value == 0


def test_gradients_that_are_all_zero() -> None:
    with pytest.raises(DataError, match="some that aren't 0"):
        solve_sparse(GradientMatrix.from_array(np.zeros((3, 5))), np.ones(5), 0.1, largest(2))
