"""The exact solver's problems, each against scikit-learn, a closed form or plain NumPy in float64."""

import numpy as np
import pytest
from kkt import kkt_violation
from sklearn.linear_model import ElasticNet, Lasso

from causalprune.base.errors import NumericalError, UsageError
from causalprune.solver import exact_fit
from causalprune.solver.evidence import NotCertifiedError
from causalprune.solver.exact_fit import fit_exactly
from causalprune.solver.fit import fit
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import ArraySource
from causalprune.solver.working_set import MemoryPlan

PLAIN = SolverOptions(held_out=0)


def causal_problem(rows=60, columns=500, seed=0, kind="layers"):
    """Columns Δθ² over several decades that follow a few common factors, and a y that some of them cause."""
    rng = np.random.default_rng(seed)
    factors = np.exp(0.4 * rng.normal(size=(rows, 6)) @ rng.normal(size=(6, columns)))
    X = factors * rng.normal(size=(rows, columns)) ** 2 * 10.0 ** rng.uniform(-2, 0, columns)
    if kind == "duplicated":
        X[:, columns // 2 :] = X[:, : columns - columns // 2]
    if kind == "tiny":
        X *= 1e-12
    if kind == "zero":
        X[:, ::3] = 0
    X = X.astype(np.float32)
    causes = X[:, :8].astype(np.float64)
    y = -(causes / causes.std(axis=0).clip(1e-300)).sum(axis=1) + 0.2 * rng.normal(size=rows)
    return X, y


@pytest.fixture
def scarce(monkeypatch):
    """Blocks of 16 columns and a working set far smaller than the columns."""
    monkeypatch.setattr(exact_fit, "plan_memory", lambda *a, **k: MemoryPlan(16, 0, 330))


def rows_of_path(result):
    """(α, P) dense coefficients of a path."""
    e = result.extras
    dense = np.zeros((len(e["path_indptr"]) - 1, len(result.gamma)))
    for row in range(len(dense)):
        part = slice(*e["path_indptr"][row : row + 2])
        dense[row, e["path_indices"][part]] = e["path_values"][part]
    return dense


@pytest.mark.parametrize("kind", ["layers", "duplicated", "tiny", "zero"])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.6])
@pytest.mark.parametrize("memory", ["ample", "scarce"])
def test_every_solution_of_a_path_meets_the_optimality_conditions(kind, l1_ratio, memory, request):
    if memory == "scarce":
        request.getfixturevalue("scarce")
    X, y = causal_problem(kind=kind)
    problem = LassoProblem(num_alphas=6, alpha_min_ratio=0.05, l1_ratio=l1_ratio, normalize="column", tol=1e-9)
    result = fit_exactly(ArraySource(X, y, 64), problem, PLAIN)
    norms = np.linalg.norm(X.astype(np.float64), axis=0)
    unit = np.divide(X, norms, where=norms > 0, out=np.zeros(X.shape))
    assert [p.alpha for p in result.evidence.path] == sorted((p.alpha for p in result.evidence.path), reverse=True)
    for point, gamma in zip(result.evidence.path[1:], rows_of_path(result)[1:], strict=True):
        assert kkt_violation(unit, y, gamma * norms, point.alpha, l1_ratio) < 1e-4
        assert point.num_nonzero == np.count_nonzero(gamma)
        assert point.relative_gap <= 1e-9
    assert result.evidence.certified
    np.testing.assert_array_equal(rows_of_path(result)[-1], result.gamma)


@pytest.mark.usefixtures("scarce")
def test_a_small_working_set_changes_the_passes_and_not_the_solution(monkeypatch):
    X, y = causal_problem(columns=3000)
    problem = LassoProblem(alpha_ratio=0.05, normalize="column")
    small = fit_exactly(ArraySource(X, y, 64), problem, PLAIN)
    monkeypatch.setattr(exact_fit, "plan_memory", lambda *a, **k: MemoryPlan(512, 0, 3000))
    large = fit_exactly(ArraySource(X, y, 64), problem, PLAIN)
    assert small.evidence.passes > large.evidence.passes == 1
    np.testing.assert_array_equal(small.gamma != 0, large.gamma != 0)
    np.testing.assert_allclose(small.gamma, large.gamma, rtol=1e-7, atol=1e-10 * np.abs(large.gamma).max())
    np.testing.assert_allclose(small.dual_correlation, large.dual_correlation, atol=2e-4)


@pytest.mark.parametrize("normalize", ["none", "column"])
@pytest.mark.usefixtures("scarce")
def test_every_kkt_score_is_known(normalize):
    X, y = causal_problem(columns=2000)
    result = fit_exactly(ArraySource(X, y, 64), LassoProblem(alpha_ratio=0.1, normalize=normalize), PLAIN)
    wide = X.astype(np.float64)
    scale = 1 / np.linalg.norm(wide, axis=0) if normalize == "column" else 1.0
    truth = np.abs((y - wide @ result.gamma) @ (wide * scale)) / (len(y) * result.evidence.alpha)
    np.testing.assert_allclose(result.dual_correlation, truth, atol=result.evidence.dual_correlation_error + 2e-5)
    assert result.evidence.dual_correlation_error <= exact_fit.RANK_TOL


@pytest.mark.parametrize("sign", [1, -1])
def test_signs_are_kept_and_the_optimum_is_that_of_scikit_learn(sign):
    X, y = causal_problem()
    y = -sign * y
    result = fit_exactly(ArraySource(X, y), LassoProblem(alpha_ratio=0.05, sign=sign, tol=1e-10), PLAIN)
    assert (sign * result.gamma >= 0).all()
    assert result.gamma.any()
    alpha = result.evidence.alpha
    wide = sign * X.astype(np.float64)
    truth = Lasso(alpha, fit_intercept=False, positive=True, tol=1e-12, max_iter=10**6).fit(wide, y).coef_
    objective = lambda g: ((y - wide @ g) ** 2).sum() / (2 * len(y)) + alpha * np.abs(g).sum()  # noqa: E731
    assert objective(sign * result.gamma) <= objective(truth) + 1e-10 * (y @ y)
    assert result.evidence.alpha_max == pytest.approx((wide.T @ y).max() / len(y))


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_kkt_scores_have_the_same_sign_with_every_solver(sign):
    X, y = causal_problem(columns=100)
    y -= y.mean()
    problem = LassoProblem(sign=sign, normalize="column")
    scores = [fit(ArraySource(X, y), problem, PLAIN, solver=name).dual_correlation for name in ("lasso", "sklearn")]
    assert (scores[0] >= 0).all() == (sign == 0)
    np.testing.assert_allclose(*scores, atol=2e-3)


def test_row_weights_are_those_of_scikit_learn():
    X, y = causal_problem()
    weights = np.random.default_rng(1).uniform(0, 2, len(y))
    options = SolverOptions(held_out=0, row_weights=weights)
    result = fit_exactly(ArraySource(X, y), LassoProblem(alpha=0.02, l1_ratio=0.7, tol=1e-11), options)
    net = ElasticNet(alpha=0.02, l1_ratio=0.7, fit_intercept=False, tol=1e-13, max_iter=10**6)
    truth = net.fit(X.astype(np.float64), y, sample_weight=weights * len(y) / weights.sum()).coef_
    np.testing.assert_allclose(result.gamma, truth, atol=1e-4 * np.abs(truth).max())


@pytest.mark.parametrize("wanted", [1, 7, 25])
def test_a_number_of_nonzeros_is_found(wanted):
    X, y = causal_problem()
    problem = LassoProblem(target_nonzero=wanted, normalize="column")
    result = fit_exactly(ArraySource(X, y, 64), problem, PLAIN)
    assert np.count_nonzero(result.gamma) == result.evidence.num_nonzero == wanted
    assert result.evidence.certified


def test_a_sparsity_beyond_the_rows_needs_a_ridge():
    X, y = causal_problem()
    with pytest.raises(UsageError, match="l1_ratio"):
        fit_exactly(ArraySource(X, y), LassoProblem(target_sparsity=0.5), PLAIN)
    problem = LassoProblem(target_sparsity=0.5, l1_ratio=0.1, alpha_min_ratio=1e-6, normalize="column")
    result = fit_exactly(ArraySource(X, y), problem, PLAIN)
    assert np.count_nonzero(result.gamma) == 250
    norms = np.linalg.norm(X.astype(np.float64), axis=0)
    assert kkt_violation(X / norms, y, result.gamma * norms, result.evidence.alpha, 0.1) < 1e-3


def test_the_folds_choose_the_alpha_that_plain_cross_validation_chooses():
    X, y = causal_problem()
    problem = LassoProblem(num_alphas=6, alpha_min_ratio=0.02)
    result = fit_exactly(ArraySource(X, y), problem, SolverOptions(held_out=0, folds=3))
    wide, edges = X.astype(np.float64), [0, 20, 40, 60]
    errors = np.zeros((3, 6))
    for fold in range(3):
        out = np.arange(edges[fold], edges[fold + 1])
        kept = np.setdiff1d(np.arange(60), out)
        for place, point in enumerate(result.evidence.path):
            net = Lasso(point.alpha, fit_intercept=False, tol=1e-10, max_iter=10**6).fit(wide[kept], y[kept])
            errors[fold, place] = ((y[out] - wide[out] @ net.coef_) ** 2).mean() / (y @ y / len(y))
    found = [point.cv_error for point in result.evidence.path]
    np.testing.assert_allclose(found, errors.mean(axis=0), rtol=2e-2)
    assert result.evidence.alpha == result.evidence.path[int(errors.mean(axis=0).argmin())].alpha


def test_held_out_r2_is_that_of_a_fit_to_the_steps_before():
    X, y = causal_problem()
    result = fit_exactly(ArraySource(X, y), LassoProblem(alpha_ratio=0.05), SolverOptions(held_out=0.25))
    wide = X.astype(np.float64)
    net = Lasso(result.evidence.alpha, fit_intercept=False, tol=1e-12, max_iter=10**6).fit(wide[:45], y[:45])
    truth = 1 - ((y[45:] - wide[45:] @ net.coef_) ** 2).sum() / ((y[45:] - y[:45].mean()) ** 2).sum()
    assert result.evidence.r2_held_out == pytest.approx(truth, abs=2e-3)


def test_selection_probabilities_are_those_of_the_resamples():
    X, y = causal_problem(columns=100)
    options = SolverOptions(held_out=0, resamples=12, seed=5)
    result = fit_exactly(ArraySource(X, y), LassoProblem(alpha_ratio=0.1), options)
    probability = result.extras["selection_probability"]
    from causalprune.solver.problem import bootstrap_counts

    truth = np.zeros(100)
    for number in range(12):
        counts = bootstrap_counts(60, 5, number)
        net = Lasso(result.evidence.alpha, fit_intercept=False, tol=1e-12, max_iter=10**6)
        truth += net.fit(X.astype(np.float64), y, sample_weight=counts).coef_ != 0
    np.testing.assert_allclose(probability, truth / 12, atol=1 / 12 + 1e-6)
    assert np.mean(np.abs(probability - truth / 12)) < 0.005
    again = fit_exactly(ArraySource(X, y), LassoProblem(alpha_ratio=0.1), options)
    np.testing.assert_array_equal(again.extras["selection_probability"], probability)


@pytest.mark.filterwarnings("error")
def test_a_weight_that_moved_in_a_step_that_no_resample_draws_is_not_selected_by_it():
    X, y = causal_problem(rows=12, columns=40)
    X[:, :20] = np.where(np.arange(12)[:, None] == np.arange(20) % 12, X[:, :20], 0)
    problem = LassoProblem(alpha_ratio=0.01, normalize="column")
    result = fit_exactly(ArraySource(X, y), problem, SolverOptions(held_out=0, resamples=20))
    chosen = result.extras["selection_probability"][:20][result.gamma[:20] != 0]
    assert result.evidence.certified
    assert len(chosen)
    assert 0 < chosen.min() <= chosen.max() < 1


def test_columns_that_could_take_another_s_place_are_named():
    X, y = causal_problem(kind="duplicated")
    result = fit_exactly(ArraySource(X, y), LassoProblem(alpha_ratio=0.2), PLAIN)
    active = np.flatnonzero(result.gamma)
    twins = np.concatenate([active, (active + 250) % 500])
    np.testing.assert_array_equal(result.extras["equicorrelation"], np.unique(twins))
    assert result.evidence.unique is False
    assert result.evidence.num_equicorrelated == len(np.unique(twins))


def test_a_unique_solution_is_called_so():
    X, y = causal_problem()
    result = fit_exactly(ArraySource(X, y), LassoProblem(alpha_ratio=0.2), PLAIN)
    assert result.evidence.unique is True
    np.testing.assert_array_equal(result.extras["equicorrelation"], np.flatnonzero(result.gamma))


def test_without_a_proof_there_is_no_fit(monkeypatch):
    X, y = causal_problem(columns=3000)
    monkeypatch.setattr(exact_fit, "plan_memory", lambda *a, **k: MemoryPlan(16, 0, 70))
    with pytest.raises(NotCertifiedError, match="max_passes") as raised:
        fit_exactly(
            ArraySource(X, y), LassoProblem(alpha_ratio=0.01, normalize="column"),
            SolverOptions(held_out=0, max_passes=1),
        )  # fmt: skip
    result = raised.value.result
    assert isinstance(raised.value, NumericalError)
    assert not result.evidence.certified
    assert result.evidence.relative_gap > 1e-6
    assert result.gamma.any()


def test_layers_share_the_passes():
    X, y = causal_problem(columns=900)
    ranges = [("a", 0, 300), ("b", 300, 310), ("c", 310, 900)]
    together = fit_exactly(ArraySource(X, y, 64), LassoProblem(alpha_ratio=0.2), PLAIN, ranges)
    assert together.evidence.passes == 1
    for name, start, stop in ranges:
        alone = fit_exactly(ArraySource(X[:, start:stop], y, 64), LassoProblem(alpha_ratio=0.2), PLAIN)
        np.testing.assert_allclose(together.gamma[start:stop], alone.gamma, rtol=1e-9, atol=1e-12)
        assert dict(together.layers)[name].alpha == pytest.approx(alone.evidence.alpha)


def test_an_accelerator_finds_the_same():
    X, y = causal_problem(columns=2000)
    problem = LassoProblem(num_alphas=4, normalize="column")
    host = fit_exactly(ArraySource(X, y, 64), problem, PLAIN)
    through_torch = exact_fit.DeviceProducts("cpu")
    original = exact_fit.HostProducts
    exact_fit.HostProducts = lambda: through_torch
    try:
        device = fit_exactly(ArraySource(X, y, 64), problem, PLAIN)
    finally:
        exact_fit.HostProducts = original
    np.testing.assert_array_equal(host.gamma != 0, device.gamma != 0)
    assert device.evidence.relative_gap <= 1e-6


@pytest.mark.cuda
@pytest.mark.parametrize("resident", [None, False])
def test_a_gpu_finds_the_same(resident):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    X, y = causal_problem(columns=2000)
    problem = LassoProblem(num_alphas=4, normalize="column")
    host = fit_exactly(ArraySource(X, y, 64), problem, PLAIN)
    device = fit_exactly(ArraySource(X, y, 64), problem, SolverOptions(held_out=0, device="cuda", resident=resident))
    np.testing.assert_array_equal(host.gamma != 0, device.gamma != 0)
    assert device.evidence.certified
