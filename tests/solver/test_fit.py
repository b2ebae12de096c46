"""Solvers by their names."""

import numpy as np
import pytest

from causalprune.base.errors import UsageError
from causalprune.solver.fit import Attempt, PlainSolver, Solver, fit
from causalprune.solver.names import SGD_PRESETS, SOLVERS
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.reference import TruncatedGradientConfig
from causalprune.solver.source import ArraySource


def proximal_gradient(source, problem, options, scan, alpha_max):
    """One way more to solve a Lasso, in twenty lines."""
    (alpha,) = problem.alphas(alpha_max)
    X, y = source.read(0, source.num_columns).astype(float) * scan.scale, source.target
    step = len(y) / np.linalg.norm(X, 2) ** 2
    g = np.zeros(source.num_columns)
    for _ in range(20_000):
        moved = g - step * X.T @ (X @ g - y) / len(y)
        g = np.sign(moved) * np.maximum(np.abs(moved) - step * alpha, 0)
    return Attempt(g, alpha, options.max_passes)


ISTA = Solver(PlainSolver(proximal_gradient, lambda _: "ista"))


def source():
    rng = np.random.default_rng(2)
    X = rng.random((30, 12))
    return ArraySource(X, X @ np.where(np.arange(12) < 3, [1.0] * 12, 0) + 0.01 * rng.standard_normal(30))


def test_a_solver_more_is_a_line_and_an_object(monkeypatch):
    monkeypatch.setitem(SOLVERS._targets, "ista", f"{__name__}:ISTA")
    exact, other = fit(source(), LassoProblem(tol=1e-9)), fit(source(), LassoProblem(tol=1e-6), solver="ista")
    assert (other.evidence.solver, other.evidence.certified) == ("ista", True)
    assert np.allclose(other.gamma, exact.gamma, atol=1e-4)
    with pytest.raises(UsageError, match="`cv`: expected `solver=lasso` beside it, found `solver=ista`"):
        fit(source(), LassoProblem(), SolverOptions(folds=3), solver="ista")


def test_an_unknown_solver_or_variant():
    with pytest.raises(UsageError, match=r"solver: expected one of lasso, .* found 'laso'"):
        fit(source(), LassoProblem(), solver="laso")
    with pytest.raises(UsageError, match="preset: expected one of paper-v1"):
        fit(source(), LassoProblem(), SolverOptions(preset="june"), solver="sgd")


def test_every_name_stands_for_an_object_of_its_kind():
    assert all(isinstance(SOLVERS.load(name), Solver) for name in SOLVERS)
    assert all(isinstance(SGD_PRESETS.load(name), TruncatedGradientConfig) for name in SGD_PRESETS)
