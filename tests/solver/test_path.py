"""The path over a working set that grows: a solution that still holds stays, one that doesn't is solved again."""

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from causalprune.solver.path import HostColumns, PathSolver, Task
from causalprune.solver.problem import Scaling
from causalprune.solver.working_set import WorkingSet

ROWS, ALPHAS = 24, [1.5, 0.5]


def joined(working_set: WorkingSet, X: np.ndarray) -> None:
    norms, count = np.linalg.norm(X.astype(np.float64), axis=0), X.shape[1]
    ids = np.arange(working_set.size, working_set.size + count)
    working_set.add(X, ids, np.ones(count), norms * (1 + 1e-12), np.ones(count))


def solve(task: Task, working_set: WorkingSet, *, refine: bool) -> None:
    score = np.zeros(working_set.size)
    solver = PathSolver(task, HostColumns(working_set, score), Scaling(1.0, 1.0), 1e-12)
    task.solutions = solver.run(1.0, refine=refine)


def coefficients(task: Task, place: int, count: int) -> np.ndarray:
    found = np.zeros(count)
    found[task.solutions[place].ids] = task.solutions[place].coefficients
    return found


@pytest.mark.parametrize("violates", [False, True])
def test_a_solution_is_checked_over_columns_that_joined(violates: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 40)).astype(np.float32)
    y = rng.normal(size=ROWS) + 3 * X[:, 0]
    working_set = WorkingSet(ROWS, 60)
    joined(working_set, X)
    task = Task(y, 1.0, 0, 1e-6, lambda _: ALPHAS)
    solve(task, working_set, refine=False)
    before = task.solutions
    assert all(len(solution.ids) for solution in before)
    # What is far from the bound changes nothing; what explains the residual is taken in.
    new = 1e-3 * rng.normal(size=(ROWS, 8))
    if violates:
        new = 100 * new + before[-1].residual[:, None]
    new = new.astype(np.float32)
    joined(working_set, new)
    solve(task, working_set, refine=True)
    kept = [after.residual is then.residual for after, then in zip(task.solutions, before, strict=True)]
    assert kept[-1] is not violates
    assert violates or all(kept)
    together = np.concatenate([X, new], axis=1).astype(np.float64)
    for place in range(len(ALPHAS)):
        penalty = task.solutions[place].penalty.l1
        truth = Lasso(penalty, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(together, y).coef_
        assert np.allclose(coefficients(task, place, together.shape[1]), truth, atol=1e-6)
