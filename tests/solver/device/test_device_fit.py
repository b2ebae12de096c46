"""Fits of columns in the memory of a device: those of the CPU, and optimal by themselves.

Where there is no GPU, the CPU stands in: its memory is taken for that of a device, and everything else is the same.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kkt import kkt_violation, true_gap
from test_exact_fit import causal_problem, rows_of_path

from causalprune.base.errors import DataError, UsageError
from causalprune.solver import exact_fit
from causalprune.solver.device import matrix, passes
from causalprune.solver.evidence import NotCertifiedError
from causalprune.solver.exact_fit import fit_exactly
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import ArraySource
from causalprune.solver.working_set import MemoryPlan


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return request.param


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Several slabs."""
    monkeypatch.setattr(matrix, "_SLAB_BYTES", {"cuda": 2**17, "cpu": 2**17})


ALPHAS = {"num_alphas": 6, "alpha_min_ratio": 0.03, "tol": 1e-10}
FITS = {
    "path": (LassoProblem(**ALPHAS, normalize="column"), SolverOptions()),
    "folds": (LassoProblem(**ALPHAS), SolverOptions(folds=3)),
    "resamples": (LassoProblem(alpha_ratio=0.05, tol=1e-10), SolverOptions(resamples=5)),
    "elastic net": (LassoProblem(**ALPHAS, l1_ratio=0.5, normalize="column"), SolverOptions(held_out=0)),
    "more than the rows": (LassoProblem(alpha_ratio=0.005, l1_ratio=0.05, tol=1e-10), SolverOptions(held_out=0)),
    "positive": (LassoProblem(**ALPHAS, sign=1), SolverOptions()),
    "negative": (LassoProblem(**ALPHAS, sign=-1, l1_ratio=0.9), SolverOptions()),
    "a number": (LassoProblem(target_nonzero=9, normalize="column"), SolverOptions()),
    "row weights": (LassoProblem(tol=1e-10), SolverOptions(row_weights=np.linspace(0, 2, 60))),
    "no ranking": (LassoProblem(alpha_ratio=0.05, tol=1e-10), SolverOptions(ranking=False)),
}


@pytest.mark.parametrize("name", FITS)
def test_every_kind_of_fit_is_that_of_the_cpu(name, device):
    X, y = causal_problem(columns=3000)
    problem, options = FITS[name]
    y = -y if problem.sign > 0 else y
    host = fit_exactly(ArraySource(X, y, 64), problem, options)
    found = fit_exactly(ArraySource(X, y, 64), problem, replace(options, device=device, resident=True))
    np.testing.assert_array_equal(found.gamma != 0, host.gamma != 0)
    np.testing.assert_allclose(found.gamma, host.gamma, rtol=1e-10, atol=1e-12 * np.abs(host.gamma).max())
    for extra in ("equicorrelation", "selection_probability"):
        if extra in host.extras:
            np.testing.assert_array_equal(found.extras[extra], host.extras[extra])
    if problem.num_alphas:
        paths = rows_of_path(found), rows_of_path(host)
        np.testing.assert_array_equal(*(path != 0 for path in paths))
        np.testing.assert_allclose(*paths, rtol=1e-8, atol=1e-12 * np.abs(host.gamma).max())
    np.testing.assert_allclose(found.dual_correlation, host.dual_correlation, atol=1e-6)
    ours, theirs = found.evidence, host.evidence
    assert ours.certified
    assert (ours.passes, ours.dual_correlation_error, ours.unique) == (1.0, 0.0, theirs.unique)
    for fact in ("alpha", "alpha_max", "objective", "r2"):
        assert getattr(ours, fact) == pytest.approx(getattr(theirs, fact), rel=1e-9)
    assert ours.r2_held_out == pytest.approx(theirs.r2_held_out, abs=1e-6)


@pytest.mark.parametrize("kind", ["layers", "duplicated", "tiny", "zero"])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.6])
def test_a_path_is_optimal_and_its_gap_is_true(kind, l1_ratio, device):
    X, y = causal_problem(kind=kind)
    problem = LassoProblem(num_alphas=5, alpha_min_ratio=0.05, l1_ratio=l1_ratio, normalize="column", tol=1e-9)
    result = fit_exactly(ArraySource(X, y), problem, SolverOptions(held_out=0, device=device, resident=True))
    norms = np.linalg.norm(X.astype(np.float64), axis=0)
    unit = np.divide(X, norms, where=norms > 0, out=np.zeros(X.shape))
    for point, gamma in zip(result.evidence.path[1:], rows_of_path(result)[1:], strict=True):
        assert kkt_violation(unit, y, gamma * norms, point.alpha, l1_ratio) < 1e-4
        _, gap = true_gap(X, y, gamma, point.alpha, l1_ratio=l1_ratio, normalize="column")
        assert gap <= point.relative_gap + 1e-12 <= 1e-9 + 1e-12


def test_layers_by_themselves(device):
    X, y = causal_problem(columns=900)
    ranges = [("a", 0, 300), ("b", 300, 310), ("c", 310, 900)]
    problem = LassoProblem(alpha_ratio=0.2, tol=1e-10)
    host = fit_exactly(ArraySource(X, y, 64), problem, SolverOptions(), ranges)
    found = fit_exactly(ArraySource(X, y, 64), problem, SolverOptions(device=device, resident=True), ranges)
    np.testing.assert_allclose(found.gamma, host.gamma, rtol=1e-10)
    np.testing.assert_array_equal(found.extras["equicorrelation"], host.extras["equicorrelation"])


def test_each_layer_has_its_gap_where_one_misses_its_goal(device):
    X, y = causal_problem(columns=900)
    ranges = [("a", 0, 300), ("b", 300, 310), ("c", 310, 900)]
    options = SolverOptions(device=device, resident=True)
    with pytest.raises(NotCertifiedError) as error:
        fit_exactly(ArraySource(X, y, 64), LassoProblem(alpha_ratio=0.2, tol=1e-30), options, ranges)
    assert error.value.result.evidence.relative_gap < 1e-6


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e15, 1e37])
def test_columns_at_the_ends_of_float32(size, device):
    X, y = causal_problem(columns=400)
    X = (X / X.max() * size).astype(np.float32)
    results = [
        fit_exactly(ArraySource(X, y), LassoProblem(tol=1e-9), SolverOptions(device=where, resident=resident))
        for where, resident in (("cpu", False), (device, True))
    ]
    np.testing.assert_allclose(results[1].gamma, results[0].gamma, rtol=1e-8)


def test_the_host_keeps_few_columns_whatever_joins(monkeypatch, device):
    X, y = causal_problem(columns=3000)
    problem, options = LassoProblem(alpha_ratio=0.01, tol=1e-10), SolverOptions(resamples=4)
    whole = fit_exactly(ArraySource(X, y), problem, options)
    monkeypatch.setattr(exact_fit, "plan_memory", lambda *a, **k: MemoryPlan(16, 0, 70))
    found = fit_exactly(ArraySource(X, y), problem, replace(options, device=device, resident=True))
    np.testing.assert_allclose(found.gamma, whole.gamma, rtol=1e-10)
    np.testing.assert_array_equal(found.extras["selection_probability"], whole.extras["selection_probability"])


def test_a_check_brings_home_the_worst_columns_and_no_others(monkeypatch):
    """Of 3,000 columns, and not one number for each of them."""
    brought, host = [], matrix.Matrix._host

    def counted(self, values):
        brought.append(values.numel())
        return host(self, values)

    monkeypatch.setattr(matrix.Matrix, "_host", counted)
    X, y = causal_problem(columns=3000)
    fit_exactly(ArraySource(X, y), LassoProblem(alpha_ratio=0.05), SolverOptions(resident=True, held_out=0))
    assert brought.count(3000) == 1  # their norms
    assert max(count for count in brought if count != 3000) == 40


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda X, _: X.fill(0), "weights that move"),
        (lambda X, _: X.__setitem__((3, 17), np.inf), "column 17"),
        (lambda X, y: (X.__setitem__((slice(None), slice(None)), 1.0), y.__isub__(y.mean())), "correlates"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_the_same_words(resident, spoil, says):
    X, y = causal_problem(columns=100)
    y = np.round(y, 3)
    spoil(X, y)
    y[-1] -= y.sum()
    with pytest.raises(DataError, match=says):
        fit_exactly(ArraySource(X, y), LassoProblem(sign=-1), SolverOptions(resident=resident))


def test_what_does_not_fit_into_the_device_is_read_in_blocks(monkeypatch):
    X, y = causal_problem(columns=1000)
    problem = LassoProblem(num_alphas=3)
    through_torch = exact_fit.DeviceProducts("cpu")
    monkeypatch.setattr(exact_fit, "DeviceProducts", lambda _: through_torch)
    monkeypatch.setattr(passes, "resolve_device", lambda _: torch.device("cpu"))
    used = []
    monkeypatch.setattr(passes.DevicePasses, "first_pass", lambda self: used.append(self))
    monkeypatch.setattr(passes, "free_bytes", lambda _: 2**20)
    with pytest.raises(UsageError, match=r"60 × 1,000 numbers.*1.05 MB free"):
        fit_exactly(ArraySource(X, y), problem, SolverOptions(device="cuda", resident=True))
    result = fit_exactly(ArraySource(X, y), problem, SolverOptions(device="cuda"))
    assert result.evidence.certified
    assert not used
