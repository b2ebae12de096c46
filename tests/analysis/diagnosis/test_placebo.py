"""A causal design must stand out from its permutations, and one without a cause must not."""

import numpy as np
import pytest

from causalprune.analysis.diagnosis.placebo import common_gamma, placebo_fits
from causalprune.base.errors import DataError
from causalprune.solver.exact_fit import fit_exactly
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import ArraySource

PROBLEM = LassoProblem(alpha_ratio=0.05, tol=1e-4)
COUNT = 19


def design(rows=80, columns=150, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)) ** 2


def p_value(fits):
    real, *placebos = (f.r2_held_out for f in fits)
    return (1 + sum(p >= real for p in placebos)) / (1 + len(placebos))


def test_a_true_cause_is_found_and_its_permutations_fail():
    X = design(200)
    y = X[:, [3, 40, 99]] @ [-2.0, -1.0, 1.5] + 0.3 * np.random.default_rng(1).standard_normal(200)
    fits = list(placebo_fits(ArraySource(X, y), PROBLEM, SolverOptions(), None, COUNT))
    assert fits[0].r2_held_out > 0.8
    assert np.median([f.r2_held_out for f in fits[1:]]) < 0.1
    assert p_value(fits) == 1 / (1 + COUNT)


def test_without_a_cause_p_values_are_uniform():
    found = []
    for seed in range(12):
        noise = np.random.default_rng(100 + seed).standard_normal(50) - 1.0
        found.append(p_value(placebo_fits(ArraySource(design(50, 40, seed), noise), PROBLEM, SolverOptions(), None, 4)))
    # On 0.2 … 1 their mean is 0.6, with a standard error of 0.08.
    assert 0.4 < np.mean(found) < 0.8


def test_a_placebo_is_the_fit_of_the_permuted_target_from_memory_or_in_blocks():
    X, y = design(30, 400), np.random.default_rng(3).standard_normal(30)
    source = ArraySource(X, y, block_width=64)
    fits = list(placebo_fits(source, PROBLEM, SolverOptions(ranking=False), None, 2))
    evidence = fit_exactly(source, PROBLEM, SolverOptions(ranking=False)).evidence
    assert fits[0].r2_held_out == pytest.approx(evidence.r2_held_out, abs=1e-3)
    assert fits[0].alpha_max == pytest.approx(np.abs(X.astype(np.float32).T @ y).max() / 30, rel=1e-5)
    # A permutation keeps the sum of y, so the bound of a design of ones is the same whatever the order.
    ones = list(placebo_fits(ArraySource(np.ones((30, 2)), y), PROBLEM, SolverOptions(), None, 3))
    assert [f.alpha_max for f in ones] == pytest.approx([abs(y.mean())] * 4, rel=1e-5)
    assert len({f.alpha_max for f in fits}) == 3


def test_one_gamma_for_all_is_exact_where_there_is_one():
    X = design(40, 60).astype(np.float32)
    assert common_gamma(ArraySource(X, -2.0 * X.sum(axis=1, dtype=np.float64), 7), 1, 0.2) == pytest.approx(1)
    y = X.astype(np.float64) @ np.tile([-1.0, 0.5, 2.0], 20)
    assert common_gamma(ArraySource(X, y, 9), 3, 0.2) == pytest.approx(1)
    assert common_gamma(ArraySource(X, y, 9), 1, 0.2) < 0.9


def test_too_few_rows_to_hold_any_out_are_refused():
    with pytest.raises(DataError, match="to hold out"):
        list(placebo_fits(ArraySource(design(4, 5), np.arange(4.0)), PROBLEM, SolverOptions(), None, 1))
