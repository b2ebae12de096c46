"""The path of brain surgery, against every single removal, and against a dense Hessian."""

import numpy as np
import pytest
import torch

from causalprune.pruning.gradients import GradientMatrix
from causalprune.pruning.surgery import rows as rows_module
from causalprune.pruning.surgery.path import surgery_order, surgery_weights
from causalprune.pruning.surgery.rows import WeightedRows


class Problem:
    """Gradients of uneven size that go together, as float32; curvatures of two decades; weights."""

    def __init__(self, seed, n, p, *, first_order=False, max_bytes=0, width=None):
        rng = np.random.default_rng(seed)
        mixed = np.eye(p) + rng.normal(size=(p, p)) / np.sqrt(p)
        matrix = (rng.normal(size=(n, p)) @ mixed * rng.uniform(0.2, 2, p)).astype(np.float32)
        self.d, self.theta = 10 ** rng.uniform(-1, 1, n), rng.normal(size=p)
        self.b = np.sqrt(self.d)[:, None] * matrix
        self.penalty = 0.05 * np.sum(self.b**2) / p
        self.target = 1 / np.sqrt(self.d) if first_order else np.zeros(n)
        # Σ g is the gradient of the loss where there is a first-order term.
        self.gradient = matrix.sum(0) if first_order else np.zeros(p)
        self.hessian = self.b.T @ self.b + self.penalty * np.eye(p)
        stored = GradientMatrix.from_array(matrix)
        if width is not None:
            stored = GradientMatrix(n, np.arange(p), lambda chosen: self._blocks(matrix, chosen, width))
        gradients = GradientMatrix(n, stored.columns, stored.read, max_bytes=max_bytes)
        self.rows = WeightedRows(gradients, self.d, torch.device("cpu"))

    @staticmethod
    def _blocks(matrix, chosen, width):
        wanted = np.arange(matrix.shape[1]) if chosen is None else chosen
        for start in range(0, len(wanted), width):
            yield start, matrix[:, wanted[start : start + width]]

    def optimum(self, support):
        """Value and weights of the quadratic model with every other weight at 0, by the dense Hessian."""
        change = -self.theta.copy()
        fixed = np.delete(np.arange(len(change)), support)
        right = -self.gradient[support] - self.hessian[np.ix_(support, fixed)] @ change[fixed]
        change[support] = np.linalg.solve(self.hessian[np.ix_(support, support)], right)
        return self.gradient @ change + change @ self.hessian @ change / 2, self.theta + change

    def order(self, candidates=None, **how):
        free = np.ones(len(self.theta), bool) if candidates is None else candidates
        return surgery_order(self.rows, self.rows.gram(), self.theta, free, self.penalty, self.target, **how)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("n", [4, 12])
def test_each_removal_is_the_best_of_all_that_there_are(n: int, first_order: bool) -> None:
    """On 8 weights: of all supports with one weight less, the next one has the least optimum."""
    for seed in range(10):
        problem = Problem(seed, n, 8, first_order=first_order)
        support = list(range(8))
        for gone in problem.order():
            values = {k: problem.optimum([j for j in support if j != k])[0] for k in support}
            assert gone == min(values, key=values.get)
            support.remove(gone)
        assert support == []


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(("n", "few"), [(20, 1), (20, 10), (80, 30), (80, 60)])
def test_blocks_are_those_of_the_dense_hessian(n: int, few: int, first_order: bool) -> None:
    """At every sparsity of 50 weights: costs by the inverse of H_SS itself, and weights by solving with it."""
    problem = Problem(1, n, 50, first_order=first_order)
    found, expected, support = problem.order(ratio=0.8, few=few), [], np.arange(50)
    while len(support):
        _, weights = problem.optimum(support)
        inverse = np.linalg.inv(problem.hessian[np.ix_(support, support)])
        costs = weights[support] ** 2 / np.diag(inverse)
        count = len(support) - max(few, int(0.8 * len(support))) if len(support) > few else 1
        expected += support[np.argsort(costs)[:count]].tolist()
        support = np.setdiff1d(support, expected)
    assert found.tolist() == expected
    for count in range(50):
        keep = np.ones(50, bool)
        keep[found[:count]] = False
        solved = surgery_weights(problem.rows, problem.theta, keep, problem.penalty, problem.target)
        assert np.all(solved[~keep] == 0)
        assert solved == pytest.approx(problem.optimum(np.flatnonzero(keep))[1], rel=1e-4, abs=1e-5)


def test_weights_that_are_no_candidates_stay_and_adapt() -> None:
    problem, free = Problem(2, 20, 50), np.arange(50) % 3 > 0
    for few in (1, 12, 50):
        order = problem.order(free, few=few)
        assert sorted(order) == np.flatnonzero(free).tolist()
    # One by one, each the least costly of the candidates beside all that stay.
    support = list(range(50))
    for gone in order[:5]:
        values = {k: problem.optimum([j for j in support if j != k])[0] for k in support if free[k]}
        assert gone == min(values, key=values.get)
        support.remove(gone)


@pytest.mark.parametrize("width", [None, 3, 5000])
@pytest.mark.parametrize("max_bytes", [0, 4 * 20 * 60, 4 * 20 * 200])
def test_how_the_gradients_are_stored_changes_no_bit(monkeypatch, width, max_bytes: int) -> None:
    """Whatever blocks they come in, and whether the rest of them is held in memory once it fits."""
    monkeypatch.setattr(rows_module, "WIDTH", 16)
    plain, other = Problem(3, 20, 200), Problem(3, 20, 200, width=width, max_bytes=max_bytes)
    order = plain.order(few=10)
    assert np.array_equal(other.order(few=10), order)
    keep = np.ones(200, bool)
    keep[order[:150]] = False
    solved = [surgery_weights(p.rows, p.theta, keep, p.penalty, p.target) for p in (plain, other)]
    assert np.array_equal(*solved)


def test_the_width_of_the_blocks_changes_roundings_alone(monkeypatch) -> None:
    order = Problem(4, 20, 200).order(few=10)
    for width in (1, 7, 64):
        monkeypatch.setattr(rows_module, "WIDTH", width)
        assert np.array_equal(Problem(4, 20, 200).order(few=10), order)


def test_blocks_in_any_order() -> None:
    problem = Problem(5, 6, 20)
    matrix = np.concatenate([block for _, block in problem.rows.gradients.read(None)], 1)

    def backwards(chosen):
        return reversed(list(Problem._blocks(matrix, chosen, 7)))

    rows = WeightedRows(GradientMatrix(6, np.arange(20), backwards), problem.d, torch.device("cpu"))
    assert rows.columns(np.arange(20)).numpy() == pytest.approx(problem.b, rel=1e-6)
    assert rows.gram().numpy() == pytest.approx(problem.b @ problem.b.T, rel=1e-4)
