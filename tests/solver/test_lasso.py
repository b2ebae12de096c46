import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kkt import kkt_violation
from sklearn.linear_model import ElasticNet

from causalprune.base.errors import DataError
from causalprune.solver.fit import fit
from causalprune.solver.problem import LassoProblem
from causalprune.solver.source import ArraySource


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


def test_the_gap_bounds_the_suboptimality_of_any_coefficients():
    from causalprune.solver.certificate import Penalty, certify

    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(15, 40)).astype(np.float32), rng.normal(size=15)
    source, ones = ArraySource(X, y), np.ones(40)
    alpha = 0.1 * np.abs(X.T.astype(np.float64) @ y).max() / 15
    best = sklearn_objective(X, y, alpha, 1.0)
    for _ in range(20):
        gamma = rng.normal(size=40) * (rng.random(40) < 0.2)
        certificate = certify(source, ones, gamma, y - X.astype(np.float64) @ gamma, Penalty(alpha))
        assert certificate.objective - certificate.gap <= best + 1e-9


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
