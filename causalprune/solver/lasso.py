"""The exact fit: scikit-learn's coordinate descent on a growing working set, certified over all columns.

The working set starts with the columns that correlate most with y. After each solve, every column that violates the
optimality conditions joins it, so the result is the optimum over all columns although most are never in the descent.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.errors import NumericalError, UsageError
from causalprune.quantities import format_bytes
from causalprune.solver.certificate import Certificate, certify
from causalprune.solver.problem import LassoProblem
from causalprune.solver.source import ColumnSource, Float64

MAX_ROUNDS = 50
"""Enlargements of the working set before the solver gives up."""

MAX_ITERATIONS = 100_000
"""Sweeps of coordinate descent in one round."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Coefficients of the scaled columns and their certificate.

    Attributes:
        coefficients: (P,) γ̃.
        residual: (T,) y − X̃γ̃.
        certificate: Over all columns.
        iterations: Sweeps of coordinate descent.
    """

    coefficients: Float64
    residual: Float64
    certificate: Certificate
    iterations: int


def solve_lasso(
    source: ColumnSource, problem: LassoProblem, scale: Float64, alpha: float, memory_bytes: int
) -> Solution:
    """Solve to a relative duality gap of ``problem.tol``.

    Args:
        source: X and y.
        problem: Penalty and tolerance.
        scale: (P,) s in X̃ = X·diag(s).
        alpha: α > 0.
        memory_bytes: Bound on the working set.

    Raises:
        UsageError: The working set would exceed ``memory_bytes``.
        NumericalError: The gap wasn't reached.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import ElasticNet

    T, y = source.num_rows, source.target
    goal = problem.tol * float(y @ y) / (2 * T)
    threshold = T * alpha * problem.l1_ratio
    coefficients = np.zeros(source.num_columns)
    residual = y.copy()
    certificate = certify(source, scale, coefficients, residual, alpha, problem.l1_ratio)
    working = np.empty(0, dtype=np.int64)
    iterations, tol = 0, problem.tol / 2
    for _ in range(MAX_ROUNDS):
        if certificate.gap <= goal:
            return Solution(coefficients, residual, certificate, iterations)
        size = max(100, 2 * int(np.count_nonzero(coefficients)), 2 * T)
        enlarged = _enlarge(working, certificate, threshold, size)
        if len(enlarged) == len(working):
            tol /= 10
        working = enlarged
        needed = 2 * 8 * T * len(working)
        if needed > memory_bytes:
            raise UsageError(
                "--memory",
                expected=f"at least {format_bytes(needed)} for {len(working):,} candidate columns",
                found=format_bytes(memory_bytes),
                remedy="raise --memory, or --alpha-ratio for fewer candidates",
            )
        columns = _gather(source, working) * scale[working]
        # scikit-learn's stopping rule is relative to ‖y‖², in the same scaling as ours.
        net = ElasticNet(
            alpha=alpha, l1_ratio=problem.l1_ratio, fit_intercept=False, tol=tol, max_iter=MAX_ITERATIONS, copy_X=False
        )
        with warnings.catch_warnings():
            # Whether it converged is for our own certificate to say.
            warnings.simplefilter("ignore", ConvergenceWarning)
            net.fit(np.asfortranarray(columns), y)
        iterations += int(net.n_iter_)
        coefficients = np.zeros(source.num_columns)
        coefficients[working] = net.coef_
        active = net.coef_ != 0
        residual = y - columns[:, active] @ net.coef_[active]
        certificate = certify(source, scale, coefficients, residual, alpha, problem.l1_ratio)
    reached = certificate.gap / (float(y @ y) / (2 * T))
    raise NumericalError(
        "fit",
        expected=f"a relative duality gap of {problem.tol:g}",
        found=f"{reached:.3g} after {iterations} iterations",
        remedy="raise --tol or --alpha-ratio, or use --normalize column",
    )


def _enlarge(
    working: npt.NDArray[np.int64], certificate: Certificate, threshold: float, size: int
) -> npt.NDArray[np.int64]:
    """Add the worst violators of |correlation_k| ≤ Tαρ, at most ``size`` at a time; ascending positions."""
    excess = np.abs(certificate.correlation)
    excess[working] = 0.0
    violators = np.flatnonzero(excess > threshold)
    if len(violators) > size:
        worst = np.argpartition(-excess[violators], size - 1)[:size]
        violators = violators[worst]
    return np.union1d(working, violators)


def _gather(source: ColumnSource, positions: npt.NDArray[np.int64]) -> Float64:
    """The columns at ascending ``positions``, (T, n) float64, in one pass over the blocks that hold them."""
    width = source.block_width
    columns = np.empty((source.num_rows, len(positions)))
    numbers = positions // width
    order = np.unique(numbers)
    for first, block in source.blocks(width, order=[int(n) for n in order]):
        mine = numbers == first // width
        columns[:, mine] = block[:, positions[mine] - first]
    return columns
