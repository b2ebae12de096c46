"""Columns, losses and α of any size: the certificate is true of the problem as documented, in extended precision."""

import warnings

import numpy as np
import pytest
from kkt import true_gap

from causalprune.base.errors import DataError, UsageError
from causalprune.solver.evidence import NotCertifiedError
from causalprune.solver.exact_fit import fit_exactly
from causalprune.solver.fit import fit
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import ArraySource

wide = np.longdouble


SIZES = ["1e-45", "1e-38", "1e-25", "1e15", "1e38"]
KINDS = ["duplicated", "constant-in-time", "one-that-is-not-zero"]


def steps_of_all_kinds(name, rows=16, columns=120):
    """X in float32 and y in float64."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(-4, 0, columns)) ** 2
    y = -(X[:, :4] / X[:, :4].std(axis=0)).sum(axis=1) + 0.1 * rng.normal(size=rows)
    if name.startswith("1e"):
        X *= float(name) / X.max()
    if name == "all-decades":
        X *= 10.0 ** rng.uniform(-38, 37, columns) / X.max()
    if name == "half-of-them-tiny":
        X[:, ::2] *= 1e-20
    if name == "tiny-ones-first":
        X[:, :100] *= 1e-40
    if name == "one-huge":
        X[:2, 110] = 3e38
    if name == "duplicated":
        X[:, 1::2] = X[:, ::2]
    if name == "constant-in-time":
        X[:] = X[0]
    if name == "one-that-is-not-zero":
        X[:] = 0
        X[3, 70] = 1e-45
    return X.astype(np.float32), y


@pytest.mark.parametrize("normalize", ["none", "column"])
@pytest.mark.parametrize(
    "name",
    [*SIZES, "all-decades", "half-of-them-tiny", "tiny-ones-first", "one-huge", *KINDS],
)
def test_the_certificate_is_true_whatever_the_size_of_the_columns(name, normalize):
    X, y = steps_of_all_kinds(name)
    problems = [{}, {"alpha_ratio": 1e-3, "tol": 1e-9}, {"l1_ratio": 0.5}, {"sign": -1}, {"alpha_ratio": 1e-12}]
    for options in problems:
        problem = LassoProblem(normalize=normalize, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                result = fit_exactly(ArraySource(X, y, 32), problem, SolverOptions())
            except NotCertifiedError:
                # Rounding in float64 may leave no proof at an α near 0.
                assert problem.alpha_ratio == 1e-12
                continue
        evidence = result.evidence
        form = {"l1_ratio": problem.l1_ratio, "normalize": normalize, "sign": problem.sign}
        objective, gap = true_gap(X, y, result.gamma, evidence.alpha, **form)
        assert evidence.certified
        assert evidence.duality_gap >= 0
        assert gap <= problem.tol * (1 + 1e-6) + 1e-15
        assert evidence.objective == pytest.approx(objective, rel=1e-9, abs=1e-13 * (y @ y))
        assert np.isfinite(result.gamma).all()
        slopes = np.abs(X.astype(wide).T @ (y - X.astype(wide) @ result.gamma))
        if options == {}:
            norms = np.sqrt((X.astype(wide) ** 2).sum(axis=0))
            scores = slopes / len(y) / evidence.alpha / (norms + (norms == 0) if normalize == "column" else 1)
            np.testing.assert_allclose(result.dual_correlation, scores.astype(float), atol=2e-4)


@pytest.mark.parametrize("solver", ["lasso", "sklearn"])
@pytest.mark.parametrize("size", [1e-139, 1e-30, 1e30, 1e139])
def test_the_certificate_is_true_whatever_the_size_of_the_losses(size, solver):
    X, y = steps_of_all_kinds("1e-9")
    y *= size / np.abs(y).max()
    result = fit(ArraySource(X, y, 32), LassoProblem(), solver=solver)
    assert result.evidence.certified
    assert true_gap(X, y, result.gamma, result.evidence.alpha)[1] <= 1.001e-6


@pytest.mark.parametrize("solver", ["lasso", "sklearn"])
@pytest.mark.parametrize("normalize", ["none", "column"])
def test_an_alpha_far_above_alpha_max_gives_zero_without_overflow(solver, normalize):
    X, y = steps_of_all_kinds("1e-30")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit(ArraySource(X, y, 32), LassoProblem(alpha=1e300, normalize=normalize), solver=solver)
    assert not result.gamma.any()
    assert "is not below alpha_max" in result.evidence.warning


@pytest.mark.parametrize("solver", ["lasso", "sklearn"])
def test_an_alpha_that_is_nothing_beside_alpha_max_is_refused(solver):
    X, y = steps_of_all_kinds("1e-9")
    with pytest.raises(UsageError, match="of alpha_max, which is"):
        fit(ArraySource(X, y), LassoProblem(alpha=1e-40), solver=solver)
    with pytest.raises(UsageError, match="at least 1e-12"):
        LassoProblem(alpha_ratio=1e-13)


@pytest.mark.parametrize("solver", ["lasso", "sklearn"])
@pytest.mark.parametrize(
    ("X", "y", "says"),
    [
        (np.float32([[1e38, np.inf], [1, 1]]), [1.0, 2.0], "column 1 of X: expected steps whose squares are finite"),
        (np.float32([[1, 2], [2, 1]]), [1e-200, 2e-200], "between 1e-140 and 1e140"),
        (np.float32([[1, 2], [2, 1]]), [1e200, 2.0], "between 1e-140 and 1e140"),
        (np.float32([[1, 2]]), [1.0], "at least 2"),
        (np.float32([[0, 0], [0, 0]]), [1.0, 2.0], "weights that move"),
    ],
)
def test_what_cannot_be_fitted_is_said(X, y, says, solver):
    with pytest.raises(DataError, match=says):
        fit(ArraySource(X, y), LassoProblem(), solver=solver)


@pytest.mark.parametrize("rows", [2, 3])
def test_few_steps_are_fitted_right(rows):
    X, y = steps_of_all_kinds("1e-9")
    X, y = X[:rows], y[:rows]
    result = fit_exactly(ArraySource(X, y), LassoProblem(normalize="column"), SolverOptions())
    assert result.evidence.certified
    assert true_gap(X, y, result.gamma, result.evidence.alpha, normalize="column")[1] <= 1.001e-6
