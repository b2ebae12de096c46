"""Solvers to compare with: scikit-learn's coordinate descent, and the truncated gradient of the paper's authors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError, NumericalError, UsageError
from causalprune.base.units import format_bytes
from causalprune.solver.evidence import FitResult
from causalprune.solver.fit import Attempt, PlainSolver, Scan, Solver
from causalprune.solver.names import SGD_PRESETS
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import ColumnSource, Float64

MAX_ITERATIONS = 100_000
"""Sweeps of coordinate descent."""


def solve_sklearn(
    source: ColumnSource, problem: LassoProblem, options: SolverOptions, scan: Scan, alpha_max: float
) -> Attempt:
    """Solve with :class:`sklearn.linear_model.ElasticNet`; see :class:`causalprune.solver.fit.PlainSolver`.

    Raises:
        UsageError: The matrix and a copy of it don't fit in ``options.memory_bytes``.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import ElasticNet

    (alpha,) = problem.alphas(alpha_max)
    T, P = source.num_rows, source.num_columns
    if options.memory_bytes < 16 * T * P:
        raise UsageError(
            "`memory`", expected=f"at least {format_bytes(16 * T * P)} for {T:,} × {P:,} in scikit-learn",
            found=format_bytes(options.memory_bytes), remedy="raise it, or use `solver=lasso`",
        )  # fmt: skip
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


SKLEARN = Solver(PlainSolver(solve_sklearn, lambda _: "sklearn"))


GRADIENT_LIMIT = 1e12
"""Gradients are clipped to ± this, as in the authors' code."""

_BLOCK_ROWS = 64
"""Rows that are read and shuffled together."""


@dataclass(frozen=True)
class TruncatedGradientPreset:
    """A variant of the truncated gradient.

    Attributes:
        lr: Step size η_0.
        lr_decay_power: d in η_t = η_0/t^d, t counted from 1 over all minibatches.
        batch_rows: Rows per minibatch.
        max_passes: Passes over the rows.
        patience: Stop after this many passes without a smaller squared error; 0: never.
        divide_by_mean: Whether y is divided by its mean.
        divide_by_lr: Whether the columns are Δθ²/η² rather than Δθ².
        momentum: Momentum of the gradient step.
        weight_decay: L2 coefficient of the gradient step.
        stop_r2: Stop when R² over a pass exceeds this; 1: never.
        alpha_times_columns: α·P if no α is given; None: α is a share of alpha_max.
    """

    lr: float
    lr_decay_power: float = 0.0
    batch_rows: int = 1
    max_passes: int = 30
    patience: int = 2
    divide_by_mean: bool = False
    divide_by_lr: bool = False
    momentum: float = 0.0
    weight_decay: float = 0.0
    stop_r2: float = 1.0
    alpha_times_columns: float | None = None


# The authors' three variants (versions of September 2024, June 2025 and October 2025 of their repository). Where they
# left a number to be tuned (the α of the first), it is the problem's α.
PAPER_V1 = TruncatedGradientPreset(lr=1e-2, lr_decay_power=0.25, batch_rows=1, max_passes=1, patience=0)
JUNE_2025 = TruncatedGradientPreset(
    lr=0.1, lr_decay_power=0.1, batch_rows=16, divide_by_mean=True, divide_by_lr=True, alpha_times_columns=1e-3
)
OCT_2025 = TruncatedGradientPreset(
    lr=0.1,
    batch_rows=16,
    divide_by_mean=True,
    divide_by_lr=True,
    momentum=0.9,
    weight_decay=0.01,
    stop_r2=0.95,
    patience=0,
    alpha_times_columns=0.0,
)


def target_unit(y: Float64, config: TruncatedGradientPreset) -> float:
    """What the variant divides y by: its mean, or 1.

    Raises:
        DataError: The mean is zero.
    """
    if not config.divide_by_mean:
        return 1.0
    unit = float(y.mean())
    if abs(unit) <= 1e-12 * float(np.abs(y).max()):
        raise DataError(
            "mean loss change", expected="a number that y can be divided by", found=f"{unit:g}",
            remedy="choose another `preset`, or record at a lower `lr`",
        )  # fmt: skip
    return unit


def solve_truncated_gradient(
    source: ColumnSource, scale: Float64, alpha: float, config: TruncatedGradientPreset, seed: int
) -> tuple[Float64, int]:
    """Run the stochastic truncated gradient on the scaled columns.

    For the squared error 1/(2b)·‖y_B − X̃_B w‖² of a minibatch of b rows: w ← w − η_t·∇; u ← u + η_t·α is the penalty
    that every weight could have received so far, q_k what it did receive; w_k > 0 becomes max(0, w_k − (u + q_k)),
    w_k < 0 becomes min(0, w_k + (u − q_k)), and the change is added to q_k (Tsuruoka, Tsujii and Ananiadou, 2009).

    Args:
        source: X and y.
        scale: (P,) s in X̃ = X·diag(s).
        alpha: α for the target as the variant scales it, y/mean(y) if it divides; 0: no penalty.
        config: The variant.
        seed: Seed of the order of the rows, which are shuffled within each block that is read.

    Returns:
        (P,) w, and the number of passes.

    Raises:
        DataError: y is to be divided by a mean of zero.
        NumericalError: The coefficients diverge.
    """
    unit = target_unit(source.target, config)
    y = source.target / unit
    w = np.zeros(source.num_columns)
    q = np.zeros_like(w)
    velocity = np.zeros_like(w)
    u, t, best, stale = 0.0, 0, np.inf, 0
    centered = float(((y - y.mean()) ** 2).sum())
    for number in range(config.max_passes):
        error = 0.0
        rng = np.random.default_rng(keyed_seed(seed, "pass", number))
        for first, block in source.row_blocks(max(config.batch_rows, _BLOCK_ROWS)):
            order = rng.permutation(len(block))
            for start in range(0, len(block), config.batch_rows):
                rows = order[start : start + config.batch_rows]
                # Only one minibatch at a time is in float64.
                wide = block[rows] * scale
                t += 1
                eta = config.lr / t**config.lr_decay_power
                residual = wide @ w - y[first + rows]
                error += float(residual @ residual)
                gradient = np.clip(residual @ wide / len(rows), -GRADIENT_LIMIT, GRADIENT_LIMIT)
                gradient += config.weight_decay * w
                velocity = config.momentum * velocity + gradient
                w -= eta * velocity
                if alpha > 0:
                    u += eta * alpha
                    before = w.copy()
                    w = np.where(w > 0, np.maximum(0.0, w - (u + q)), np.where(w < 0, np.minimum(0.0, w + (u - q)), w))
                    q += w - before
        if not np.isfinite(w).all():
            raise NumericalError(
                "truncated gradient", expected="coefficients that stay finite", found="divergence",
                remedy="use `solver=lasso`, or `normalize=column`",
            )  # fmt: skip
        if centered > 0 and 1 - error / centered > config.stop_r2:
            return w * unit, number + 1
        stale = 0 if error < best else stale + 1
        best = min(best, error)
        if config.patience and stale >= config.patience:
            return w * unit, number + 1
    return w * unit, config.max_passes


def _solve(
    source: ColumnSource, problem: LassoProblem, options: SolverOptions, scan: Scan, alpha_max: float
) -> Attempt:
    config = _variant(options)
    (alpha,) = problem.alphas(alpha_max)
    # Our α belongs to y, the authors' to y as the variant divides it.
    unit = abs(target_unit(source.target, config))
    if config.alpha_times_columns is not None and problem.alpha is None and problem.alpha_ratio is None:
        alpha = unit * config.alpha_times_columns / source.num_columns
    coefficients, passes = solve_truncated_gradient(source, scan.scale, alpha / unit, config, options.seed)
    # Without a penalty there is no Lasso to certify; compute the gap for a tiny α instead.
    return Attempt(coefficients, max(alpha, 1e-12 * alpha_max), passes)


def _variant(options: SolverOptions) -> TruncatedGradientPreset:
    config: TruncatedGradientPreset = SGD_PRESETS.load(options.preset)
    return config


_PLAIN = PlainSolver(_solve, lambda options: f"sgd {options.preset}", certifies=False)


def _fit(source: ColumnSource, problem: LassoProblem, options: SolverOptions, *others: Any) -> FitResult:
    _PLAIN.refuse(options, {"`positive` and `negative`": problem.sign, "`l1_ratio`": problem.l1_ratio < 1})
    target_unit(source.target, _variant(options))
    return _PLAIN(source, problem, options, *others)


SGD = Solver(_fit, certifies=False, divides_by_lr=lambda options: _variant(options).divide_by_lr)
