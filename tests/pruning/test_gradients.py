"""Gradients from a recording, against autograd and NumPy."""

import numpy as np
import pytest
import torch

from causalprune.base.errors import DataError
from causalprune.pruning.gradients import GradientMatrix, mean_squared_gradient
from causalprune.trajectory.steps.learning_rates import LearningRates


def test_squared_gradients_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3, bias=False)
    rates, deltas, squares = [0.1, 0.1, 0.05, 0.02, 0.01], [], []
    for lr in rates:
        model.zero_grad()
        model(torch.randn(4, 5)).square().mean().backward()
        squares.append(model.weight.grad.double().square().flatten().numpy())
        before = model.weight.detach().clone()
        torch.optim.SGD(model.parameters(), lr=lr).step()
        deltas.append((model.weight.detach() - before).flatten().numpy())
    found = mean_squared_gradient([(3, np.array(deltas[3:])), (0, np.array(deltas[:3]))], LearningRates.same(rates), 15)
    assert found == pytest.approx(np.mean(squares, axis=0), rel=1e-3)


@pytest.mark.parametrize("max_bytes", [0, 2**20])
@pytest.mark.parametrize("columns", [None, np.array([1, 2, 5])])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_gradient_matrix_of_a_recording(max_bytes: int, columns, groups: int) -> None:
    """Every gradient comes back, whether the matrix is kept or read again, and so do its products."""
    rng = np.random.default_rng(0)
    truth, rates = rng.normal(size=(5, 8)), np.array([0.1, 0.1, 0.05, 0.02, 0.01])
    lr = LearningRates.same(rates)
    if groups == 2:
        lr = LearningRates(np.stack([rates, 7 * rates[::-1]], axis=1), np.array([0, 1, 0, 0, 1, 1, 0, 1]))
    deltas = (-lr.block(slice(None), slice(None)) * truth).astype(np.float32)
    squares = mean_squared_gradient([(0, deltas[:2]), (2, deltas[2:])], lr, 8)
    assert squares == pytest.approx((truth**2).mean(axis=0), rel=1e-5)

    def blocks(chosen):
        wanted = np.arange(8) if chosen is None else chosen
        for start in range(0, len(wanted), 3):
            yield start, deltas[:, wanted[start : start + 3]]

    found = GradientMatrix.from_deltas(blocks, lr, np.arange(8), max_rows=9, max_bytes=max_bytes)
    part = truth if columns is None else truth[:, columns]
    v, u, m = rng.normal(size=part.shape[1]), rng.normal(size=5), rng.normal(size=(5, 5))
    assert found.num_rows == 5
    assert found.dot(v, columns) == pytest.approx(part @ v, rel=1e-5)
    assert found.dot_transposed(u, columns) == pytest.approx(part.T @ u, rel=1e-5)
    assert found.gram(columns) == pytest.approx(part @ part.T, rel=1e-5)
    assert found.quadratic(m) == pytest.approx(np.diag(truth.T @ m @ truth), rel=1e-4)


def test_of_a_long_recording_evenly_spaced_rows_are_taken() -> None:
    deltas = -np.repeat(np.arange(10, dtype=np.float32)[:, None], 2, axis=1)

    def blocks(chosen):
        yield 0, deltas if chosen is None else deltas[:, chosen]

    found = GradientMatrix.from_deltas(
        blocks, LearningRates.same(np.ones(10)), np.arange(2), max_rows=4, max_bytes=2**20
    )
    assert found.dot(np.array([1.0, 0.0])).tolist() == [0, 2, 5, 7]


def test_one_gradient_is_too_few() -> None:
    with pytest.raises(DataError, match="at least 2 rows"):
        GradientMatrix.from_deltas(
            lambda _: iter(()), LearningRates.same([1.0]), np.arange(2), max_rows=4, max_bytes=2**20
        )


@pytest.mark.parametrize("blocks", [[], [(0, np.zeros((0, 3)))]])
def test_no_recorded_steps(blocks) -> None:
    with pytest.raises(DataError, match="at least one step"):
        mean_squared_gradient(blocks, LearningRates.same([]), 3)


@pytest.mark.parametrize("lr", [0.0, -0.1, np.nan, np.inf])
def test_a_recorded_learning_rate_that_cant_be(lr: float) -> None:
    with pytest.raises(DataError, match="recorded learning rates"):
        mean_squared_gradient([(0, np.ones((2, 3)))], LearningRates.same([0.1, lr]), 3)
