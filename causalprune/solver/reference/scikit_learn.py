"""The solver ``sklearn``: coordinate descent of scikit-learn, in memory."""

from __future__ import annotations

import warnings

import numpy as np

from causalprune.base.errors import UsageError
from causalprune.base.units import format_bytes
from causalprune.solver.fit import Attempt, PlainSolver, Scan, Solver
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import ColumnSource

MAX_ITERATIONS = 100_000
"""Sweeps of coordinate descent."""


def _require_memory(num_rows: int, num_columns: int, options: SolverOptions) -> None:
    """Check that the matrix and a copy of it fit in ``options.memory_bytes``.

    Raises:
        UsageError: They don't.
    """
    needed = 16 * num_rows * num_columns
    if options.memory_bytes < needed:
        raise UsageError(
            "`memory`", expected=f"at least {format_bytes(needed)} for {num_rows:,} × {num_columns:,} in scikit-learn",
            found=format_bytes(options.memory_bytes), remedy="raise it, or use `solver=lasso`",
        )  # fmt: skip


def solve_sklearn(
    source: ColumnSource, problem: LassoProblem, options: SolverOptions, scan: Scan, alpha_max: float
) -> Attempt:
    """Solve with :class:`sklearn.linear_model.ElasticNet`; see :class:`causalprune.solver.fit.PlainSolver`."""
    del options  # The memory was checked.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import ElasticNet

    (alpha,) = problem.alphas(alpha_max)
    T, P = source.num_rows, source.num_columns
    columns = np.empty((T, P), order="F")
    for first, block in source.blocks():
        columns[:, first : first + block.shape[1]] = block
    columns *= scan.scale
    # Make columns of the order of 1: squares of 1e-12 would underflow in scikit-learn's tests.
    size = float(np.abs(columns).max()) or 1.0
    lift = 2.0 ** -np.floor(np.log2(size))
    columns *= lift if problem.sign >= 0 else -lift
    # Beyond alpha_max γ is 0 whatever α is, which might overflow.
    lifted = lift * min(alpha, 2 * alpha_max)
    l1, l2 = lifted * problem.l1_ratio, lift * lifted * (1 - problem.l1_ratio)
    # scikit-learn's stopping rule is relative to ‖y‖², with the same scaling of the objective.
    net = ElasticNet(
        alpha=l1 + l2,
        l1_ratio=l1 / (l1 + l2),
        fit_intercept=False,
        tol=problem.tol / 2,
        max_iter=MAX_ITERATIONS,
        copy_X=False,
        positive=problem.sign != 0,
    )
    with warnings.catch_warnings():
        # Our own certificate decides whether it converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(columns, source.target)
    return Attempt(net.coef_ * (lift if problem.sign >= 0 else -lift), alpha, int(net.n_iter_))


_PLAIN = PlainSolver(solve_sklearn, lambda _: "sklearn", require=_require_memory)

SKLEARN = Solver(_PLAIN, check=_PLAIN.check)
