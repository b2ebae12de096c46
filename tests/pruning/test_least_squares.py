import numpy as np
import pytest
import torch

from causalprune.base.errors import NumericalError
from causalprune.pruning.least_squares import Moments, inverse_diagonals

ROWS, INPUTS, OUTPUTS = 300, 8, 5


@pytest.fixture(params=[True, False], ids=["free bias", "no bias"])
def problem(request):
    """Rows with a large mean, as after a ReLU; a prior; a mask of which one row keeps nothing and one all."""
    rng = np.random.default_rng(0)
    u = rng.normal(3, 1, (ROWS, INPUTS)) @ rng.normal(size=(INPUTS, INPUTS))
    y = u @ rng.normal(size=(INPUTS, OUTPUTS)) + 7 + rng.normal(size=(ROWS, OUTPUTS))
    prior, keep = rng.normal(size=(OUTPUTS, INPUTS)), rng.random((OUTPUTS, INPUTS)) < 0.6
    keep[0], keep[1] = False, True
    moments = Moments(1, INPUTS, OUTPUTS, free_bias=request.param, device=torch.device("cpu"))
    for part in range(0, ROWS, 64):
        moments.add(*(torch.from_numpy(rows[None, part : part + 64]).float() for rows in (u, y)))
    return moments, u, y, prior, keep


def closed_form(u, y, prior, keep, penalty, *, free_bias):
    """Ridge regression of each output on its kept inputs, as one ordinary least-squares problem with more rows."""
    found, bias = np.zeros_like(prior), np.zeros(len(prior))
    for o in range(len(prior)):
        s = np.flatnonzero(keep[o])
        ones = np.ones((len(u), int(free_bias)))
        left = np.block(
            [[u[:, s], ones], [np.sqrt(penalty) * np.eye(len(s)), np.zeros((len(s), int(free_bias)))]],
        )
        right = np.concatenate([y[:, o], np.sqrt(penalty) * prior[o, s]])
        solution = np.linalg.lstsq(left, right, rcond=None)[0]
        found[o, s] = solution[: len(s)]
        bias[o] = solution[-1] if free_bias else 0
    return found, bias


def test_the_solution_is_that_of_ordinary_least_squares(problem):
    moments, u, y, prior, keep = problem
    center = u - u.mean(0) if moments.free_bias else u
    penalty = 0.01 * (center**2).sum(0).mean()
    found = moments.solve(torch.from_numpy(prior)[None], torch.from_numpy(keep)[None], 0.01)
    expected, bias = closed_form(u, y, prior, keep, penalty, free_bias=moments.free_bias)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-4)
    if moments.free_bias:
        np.testing.assert_allclose(moments.bias(found)[0], bias, rtol=1e-3, atol=2e-3)
    residual = y - u @ found[0].numpy().T - (moments.bias(found)[0].numpy() if moments.free_bias else 0)
    error, scale = moments.error(found)
    assert error == pytest.approx((residual**2).sum(), rel=1e-3)
    assert scale == pytest.approx(((y - y.mean(0) if moments.free_bias else y) ** 2).sum(), rel=1e-5)


def test_the_error_counts_a_bias_that_is_off(problem):
    moments, u, y, prior, _ = problem
    weights, bias = torch.from_numpy(prior)[None], torch.full((1, OUTPUTS), 2.0)
    shift = 2.0 if moments.free_bias else 0.0
    error, _ = moments.error(weights, bias)
    assert error == pytest.approx(((y - u @ prior.T - shift) ** 2).sum(), rel=1e-4)


def test_squares_of_the_inputs_are_about_zero(problem):
    moments, u, *_ = problem
    np.testing.assert_allclose(moments.squared_inputs()[0], (u**2).sum(0), rtol=1e-5)


def test_rows_that_keep_the_same_inputs_share_a_factor(problem):
    moments, _, _, prior, keep = problem
    same = np.tile(keep[2], (OUTPUTS, 1))
    together = moments.solve(torch.from_numpy(prior)[None], torch.from_numpy(same)[None], 0.01)[0]
    for o in range(OUTPUTS):
        mixed = keep.copy()
        mixed[o] = keep[2]
        alone = moments.solve(torch.from_numpy(prior)[None], torch.from_numpy(mixed)[None], 0.01)[0]
        torch.testing.assert_close(together[o], alone[o])


def test_dependent_inputs_need_a_ridge():
    moments = Moments(1, 3, 1, free_bias=False, device=torch.device("cpu"))
    u = torch.arange(12.0).reshape(1, 12, 1)
    moments.add(u.expand(1, 12, 3), u)
    prior, keep = torch.zeros(1, 1, 3), torch.ones(1, 1, 3, dtype=torch.bool)
    with pytest.raises(NumericalError, match="larger `ridge` or more `samples`"):
        moments.solve(prior, keep, 0.0)
    assert torch.isfinite(moments.solve(prior, keep, 1e-3)).all()


def test_the_diagonals_are_those_of_numpys_inverse(monkeypatch):
    """In several chunks, with rows of every length."""
    monkeypatch.setattr("causalprune.pruning.least_squares._CHUNK_VALUES", 60)
    rng = np.random.default_rng(1)
    half, keep = rng.normal(size=(20, 9)), rng.random((12, 9)) < 0.5
    gram = half.T @ half
    keep[3] = False
    found = inverse_diagonals(torch.from_numpy(gram), torch.from_numpy(keep), 0.1)
    penalty = 0.1 * np.diag(gram).mean()
    for row, kept in zip(found.numpy(), keep, strict=True):
        s = np.flatnonzero(kept)
        expected = np.zeros(9)
        expected[s] = np.diag(np.linalg.inv(gram[np.ix_(s, s)] + penalty * np.eye(len(s))))
        np.testing.assert_allclose(row, expected, rtol=1e-10)


def test_inputs_that_are_all_constant_leave_a_zero_diagonal_of_costs():
    """With G = 0 the inverse has no bound, and w²/[G⁻¹]_kk is 0: removing such a weight costs nothing."""
    keep = torch.tensor([[True, False], [True, True]])
    found = inverse_diagonals(torch.zeros(2, 2, dtype=torch.float64), keep)
    assert torch.equal(found, torch.tensor([[torch.inf, 0], [torch.inf, torch.inf]], dtype=torch.float64))
