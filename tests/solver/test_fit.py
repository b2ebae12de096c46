"""Fits through the entry: optimal, certified, recovered exactly where γ is known; solvers by their names."""

import json

import numpy as np
import pytest
from causalprune_cli.main import main
from hypothesis import given, settings
from hypothesis import strategies as st
from kkt import kkt_violation
from sklearn.linear_model import ElasticNet
from test_fit_of_a_store import record, steps

from causalprune.base.errors import DataError, UsageError
from causalprune.solver.fit import Attempt, PlainSolver, Solver, fit
from causalprune.solver.names import SGD_PRESETS, SOLVERS
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.reference.truncated_gradient import TruncatedGradientPreset
from causalprune.solver.source import ArraySource
from causalprune.trajectory import Store


def random_columns(rng, kind, rows=40, columns=300):
    X = rng.normal(size=(rows, columns)) ** 2
    if kind == "correlated":
        X = np.cumsum(X, axis=1) / np.arange(1, columns + 1) + 0.05 * X
    elif kind == "duplicated":
        X[:, columns // 2 :] = X[:, : columns - columns // 2]
    elif kind == "zero":
        X[:, ::3] = 0
    elif kind == "tiny":
        X *= 1e-12
    return X.astype(np.float32)


def sklearn_objective(X, y, alpha, l1_ratio):
    """The optimum by scikit-learn, at a tolerance far below ours, in units where X is of order 1."""
    unit = float(np.abs(X).max())
    net = ElasticNet(alpha=alpha / unit, l1_ratio=l1_ratio, fit_intercept=False, tol=1e-10, max_iter=10**6)
    net.fit(X.astype(np.float64) / unit, y)
    residual = y - X.astype(np.float64) @ (net.coef_ / unit)
    return residual @ residual / (2 * len(y)) + alpha * np.abs(net.coef_ / unit).sum()


@pytest.mark.parametrize("kind", ["random", "correlated", "duplicated", "zero", "tiny"])
@pytest.mark.parametrize("ratio", [0.5, 0.05])
def test_lasso_reaches_the_optimum_of_scikit_learn(kind, ratio):
    rng = np.random.default_rng(3)
    X = random_columns(rng, kind)
    y = -X[:, :5].astype(np.float64).sum(axis=1) + 0.1 * X.std() * rng.normal(size=len(X))
    result = fit(ArraySource(X, y, block_width=64), LassoProblem(alpha_ratio=ratio, tol=1e-9))
    alpha = ratio * np.abs(X.astype(np.float64).T @ y).max() / len(y)
    assert result.evidence.alpha == pytest.approx(alpha, rel=1e-12)
    residual = y - X.astype(np.float64) @ result.gamma
    objective = residual @ residual / (2 * len(y)) + alpha * np.abs(result.gamma).sum()
    assert result.evidence.certified
    assert objective <= sklearn_objective(X, y, alpha, 1.0) + 1e-9 * (y @ y) / (2 * len(y))
    assert kkt_violation(X, y, result.gamma, alpha) < 1e-3


def test_elastic_net_reaches_the_optimum_and_its_support_may_exceed_the_rows():
    rng = np.random.default_rng(0)
    X = random_columns(rng, "correlated", rows=20, columns=200)
    y = rng.normal(size=20)
    result = fit(ArraySource(X, y), LassoProblem(alpha_ratio=0.02, l1_ratio=0.1, tol=1e-10))
    assert kkt_violation(X, y, result.gamma, result.evidence.alpha, 0.1) < 1e-3
    net = ElasticNet(alpha=result.evidence.alpha, l1_ratio=0.1, fit_intercept=False, tol=1e-12, max_iter=10**6)
    np.testing.assert_allclose(
        result.gamma, net.fit(X.astype(np.float64), y).coef_, atol=1e-4 * np.abs(net.coef_).max()
    )
    assert result.evidence.num_nonzero > 20


@pytest.mark.parametrize("size", [1.0, 0.125, 1e-3, 1e-12])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_an_alpha_that_is_given_belongs_to_the_columns_as_they_are(size, l1_ratio):
    rng = np.random.default_rng(4)
    X = (size * random_columns(rng, "random")).astype(np.float32)
    y = X[:, :5].astype(np.float64).sum(axis=1) / size + rng.normal(size=len(X))
    alpha = 0.1 * np.abs(X.astype(np.float64).T @ y).max() / (len(y) * l1_ratio)
    result = fit(ArraySource(X, y), LassoProblem(alpha=alpha, l1_ratio=l1_ratio, tol=1e-12))
    assert result.evidence.alpha == alpha
    assert result.evidence.alpha_max == pytest.approx(10 * alpha, rel=1e-12)
    assert kkt_violation(X, y, result.gamma, alpha, l1_ratio) < 1e-4


def test_a_layer_that_never_moved_has_gamma_zero_and_is_named():
    rng = np.random.default_rng(1)
    X, y = random_columns(rng, "random"), rng.normal(size=40)
    X[:, 100:] = 0
    result = fit(ArraySource(X, y), LassoProblem(), ranges=[("moves", 0, 100), ("dead", 100, 300)])
    assert result.gamma[:100].any()
    assert not result.gamma[100:].any()
    assert not result.dual_correlation[100:].any()
    assert result.evidence.alpha_max > 0
    assert "dead: no column" in result.evidence.warning


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 30), st.floats(0.01, 0.9), st.floats(0.2, 1.0))
def test_every_certified_solution_meets_the_optimality_conditions(seed, rows, columns, ratio, l1_ratio):
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    y = rng.normal(size=rows)
    result = fit(
        ArraySource(X, y, 7), LassoProblem(alpha_ratio=ratio, l1_ratio=l1_ratio, normalize="column", tol=1e-12)
    )
    norms = np.linalg.norm(X.astype(np.float64), axis=0)
    unit = X.astype(np.float64) / norms
    assert kkt_violation(unit, y, result.gamma * norms, result.evidence.alpha, l1_ratio) < 1e-4
    np.testing.assert_allclose(result.dual_correlation[result.gamma != 0], 1.0, atol=1e-4)
    assert result.dual_correlation.max() <= 1 + 1e-4


def test_two_runs_and_other_block_widths_give_the_same_solution():
    rng = np.random.default_rng(1)
    X = random_columns(rng, "correlated")
    y = rng.normal(size=len(X))
    first, again, other = (fit(ArraySource(X, y, w), LassoProblem(alpha_ratio=0.1)) for w in (32, 32, 300))
    assert first.gamma.tobytes() == again.gamma.tobytes()
    np.testing.assert_array_equal(first.gamma != 0, other.gamma != 0)


def test_an_alpha_of_alpha_max_gives_zero_and_says_so():
    rng = np.random.default_rng(1)
    X, y = random_columns(rng, "random"), rng.normal(size=40)
    result = fit(ArraySource(X, y), LassoProblem(alpha_ratio=1.0))
    assert not result.gamma.any()
    assert "every γ is 0" in result.evidence.warning


def test_layers_are_fitted_each_by_itself():
    rng = np.random.default_rng(1)
    X, y = random_columns(rng, "random"), rng.normal(size=40)
    together = fit(ArraySource(X, y), LassoProblem(alpha_ratio=0.2), ranges=[("a", 0, 100), ("b", 100, 300)])
    alone = fit(ArraySource(X[:, 100:], y), LassoProblem(alpha_ratio=0.2))
    np.testing.assert_array_equal(together.gamma[100:], alone.gamma)
    assert [name for name, _ in together.layers] == ["a", "b"]


X_FINE = np.abs(np.random.default_rng(0).normal(size=(5, 8))).astype(np.float32)
Y_FINE = np.arange(5.0)


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (X_FINE[:1], Y_FINE[:1], "at least 2"),
        (X_FINE, np.full(5, 0.25), "changes from step to step"),
        (X_FINE, np.full(5, np.nan), "finite"),
        (X_FINE * 0, Y_FINE, "weights that move"),
        (np.ones((2, 3)), np.array([1.0, -1.0]), "a column that correlates"),
        (X_FINE * np.float32(np.inf), Y_FINE, "finite"),
    ],
)
def test_data_that_no_fit_can_be_made_of(X, y, words):
    with pytest.raises(DataError, match=words), np.errstate(invalid="ignore"):
        fit(ArraySource(X, y), LassoProblem())


# On L(θ) = ½ Σ h_k θ_k², plain SGD obeys ΔL = Σ γ_k Δθ_k² exactly, with γ_k = −1/η + h_k/2.
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


def proximal_gradient(source, problem, options, scan, alpha_max):
    """Another way to solve a Lasso."""
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


def test_a_further_solver_is_one_line_and_one_object(monkeypatch):
    monkeypatch.setitem(SOLVERS, "ista", f"{__name__}:ISTA")
    exact, other = fit(source(), LassoProblem(tol=1e-9)), fit(source(), LassoProblem(tol=1e-6), solver="ista")
    assert (other.evidence.solver, other.evidence.certified) == ("ista", True)
    assert np.allclose(other.gamma, exact.gamma, atol=1e-4)
    with pytest.raises(UsageError, match="`cv`: expected `solver=lasso` beside it, found `solver=ista`"):
        fit(source(), LassoProblem(), SolverOptions(folds=3), solver="ista")


def test_a_further_solver_is_used_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SOLVERS, "ista", f"{__name__}:ISTA")
    store = record(tmp_path / "s.zarr", *steps(columns=12))
    options = ["--store", str(store), "--normalize", "column", "--alpha-ratio", "0.3", "--quiet", "--json"]
    assert main(["fit-gamma", "--solver", "ista", "--name", "ista", *options]) == 0
    evidence = json.loads(capsys.readouterr().out)["metrics"]["evidence"]
    assert (evidence["solver"], evidence["certified"]) == ("ista", True)
    assert main(["fit-gamma", *options]) == 0
    reader = Store.open(store).recording()
    found, exact = (reader.read_fit(name).arrays["gamma"] for name in ("ista", "default"))
    np.testing.assert_allclose(found, exact, atol=1e-3 * np.abs(exact).max())
    assert main(["fit-gamma", "--solver", "ista", "--name", "path", "--alphas", "3", *options[:2]]) == 2
    assert "--alphas: expected --solver lasso beside it, found --solver ista" in capsys.readouterr().err


def test_an_unknown_solver_or_variant():
    with pytest.raises(UsageError, match=r"solver: expected one of lasso, .* found 'laso'"):
        fit(source(), LassoProblem(), solver="laso")
    with pytest.raises(UsageError, match="preset: expected one of paper-v1"):
        fit(source(), LassoProblem(), SolverOptions(preset="june"), solver="sgd")


def test_every_name_stands_for_an_object_of_its_kind():
    assert all(isinstance(SOLVERS.load(name), Solver) for name in SOLVERS)
    assert all(isinstance(SGD_PRESETS.load(name), TruncatedGradientPreset) for name in SGD_PRESETS)
