"""The solver ``sgd``: the truncated gradient of the paper's authors, as each version of their code has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError, NumericalError
from causalprune.solver.evidence import FitResult
from causalprune.solver.fit import Attempt, PlainSolver, Scan, Solver
from causalprune.solver.names import SGD_PRESETS
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import ColumnSource, Float64, Size

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
        factor: f in the loss f/(2b)·‖y_B − X̃_B w‖² of a minibatch of b rows: 1 for half the squared error, 2 for the
            mean squared error.
        max_passes: Passes over the rows.
        patience: Stop after this many passes in a row that don't lower the least loss of a pass by ``tol``; 0: never.
        tol: See ``patience``; in units of y², or of (y/mean)² where y is divided.
        sum_of_losses: Whether the loss of a pass is the sum over its minibatches rather than their mean.
        keep_best: Whether the result is w after the pass with the least loss rather than after the last one.
        stop_r2: Stop when R² over all rows, in a pass of its own, exceeds this; 1: never, and there is no such pass.
        divide_by_mean: Whether y is divided by its mean.
        divide_by_lr: Whether the columns are Δθ²/η² rather than Δθ².
        momentum: Momentum of the gradient step.
        weight_decay: L2 coefficient of the gradient step.
        alpha: α beside that loss if none is given; None if ``alpha_times_weights`` says it.
        alpha_times_weights: α·P if no α is given, P the number of all prunable weights of the network.
    """

    lr: float
    lr_decay_power: float = 0.0
    batch_rows: int = 1
    factor: float = 1.0
    max_passes: int = 30
    patience: int = 2
    tol: float = 0.0
    sum_of_losses: bool = False
    keep_best: bool = False
    stop_r2: float = 1.0
    divide_by_mean: bool = False
    divide_by_lr: bool = False
    momentum: float = 0.0
    weight_decay: float = 0.0
    alpha: float | None = None
    alpha_times_weights: float | None = None


# The authors' three variants (versions of September 2024, June 2025 and October 2025 of their repository).
PAPER_V1 = TruncatedGradientPreset(
    lr=1e-2, lr_decay_power=0.25, max_passes=1000, tol=1e-4, sum_of_losses=True, alpha=1e-14
)
JUNE_2025 = TruncatedGradientPreset(
    lr=0.1,
    lr_decay_power=0.1,
    batch_rows=16,
    factor=2.0,
    tol=1e-7,
    keep_best=True,
    divide_by_mean=True,
    divide_by_lr=True,
    alpha_times_weights=1e-3,
)
OCT_2025 = TruncatedGradientPreset(
    lr=0.1,
    batch_rows=16,
    factor=2.0,
    tol=1e-7,
    keep_best=True,
    stop_r2=0.95,
    divide_by_mean=True,
    divide_by_lr=True,
    momentum=0.9,
    weight_decay=0.01,
    alpha=0.0,
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

    For the loss f/(2b)·‖y_B − X̃_B w‖² of a minibatch of b rows: w ← w − η_t·∇; u ← u + η_t·α is the penalty that every
    weight could have received so far, q_k what it did receive; w_k > 0 becomes max(0, w_k − (u + q_k)), w_k < 0 becomes
    min(0, w_k + (u − q_k)), and the change is added to q_k (Tsuruoka, Tsujii and Ananiadou, 2009).

    Args:
        source: X and y.
        scale: (P,) s in X̃ = X·diag(s).
        alpha: α beside that loss, for y as the variant scales it; 0: no penalty.
        config: The variant.
        seed: Seed of the order of the rows, which are shuffled within each block that is read.

    Returns:
        (P,) w, and the number of passes, those that only measure R² not counted.

    Raises:
        DataError: y is to be divided by a mean of zero.
        NumericalError: The coefficients diverge.
    """
    unit = target_unit(source.target, config)
    y = source.target / unit
    w = np.zeros(source.num_columns)
    q = np.zeros_like(w)
    velocity = np.zeros_like(w)
    u, t, least, stale = 0.0, 0, np.inf, 0
    best: Float64 | None = None
    for number in range(config.max_passes):
        loss, minibatches = 0.0, 0
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
                loss += config.factor / 2 * float(residual @ residual) / len(rows)
                minibatches += 1
                gradient = config.factor * (residual @ wide) / len(rows)
                gradient = np.clip(gradient, -GRADIENT_LIMIT, GRADIENT_LIMIT) + config.weight_decay * w
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
        loss /= 1 if config.sum_of_losses else minibatches
        stale = stale + 1 if loss > least - config.tol else 0
        if loss < least:
            least = loss
            best = w.copy() if config.keep_best else None
        if config.patience and stale >= config.patience:
            break
        if config.stop_r2 < 1 and _r2(source, scale, w, y) > config.stop_r2:
            break
    return (w if best is None else best) * unit, number + 1


def _r2(source: ColumnSource, scale: Float64, w: Float64, y: Float64) -> float:
    """R² of w over all rows."""
    gamma = scale * w
    residual = y - sum((block.astype(np.float64) @ gamma[i : i + block.shape[1]] for i, block in source.blocks()), 0.0)
    return 1 - float(residual @ residual) / float(((y - y.mean()) ** 2).sum())


def _solve(
    source: ColumnSource, problem: LassoProblem, options: SolverOptions, scan: Scan, alpha_max: float
) -> Attempt:
    config = _variant(options)
    (alpha,) = problem.alphas(alpha_max)
    # Our α stands beside half the squared error of y; the authors', beside f times that of y as the variant divides it.
    per_own = config.factor / abs(target_unit(source.target, config))
    if problem.alpha is None and problem.alpha_ratio is None:
        if config.alpha_times_weights is not None:
            alpha = config.alpha_times_weights / (options.num_weights or source.num_columns) / per_own
        elif config.alpha is not None:
            alpha = config.alpha / per_own
    coefficients, passes = solve_truncated_gradient(source, scan.scale, alpha * per_own, config, options.seed)
    # Without a penalty there is no Lasso to certify; compute the gap for a tiny α instead.
    return Attempt(coefficients, max(alpha, 1e-12 * alpha_max), passes)


def _variant(options: SolverOptions) -> TruncatedGradientPreset:
    config: TruncatedGradientPreset = SGD_PRESETS.load(options.preset)
    return config


_PLAIN = PlainSolver(_solve, lambda options: f"sgd {options.preset}", certifies=False)


def _refuse(problem: LassoProblem, options: SolverOptions) -> None:
    _PLAIN.refuse(options, {"`positive` and `negative`": problem.sign, "`l1_ratio`": problem.l1_ratio < 1})


def _check(size: Size, problem: LassoProblem, options: SolverOptions, *others: Any) -> None:
    _refuse(problem, options)
    _PLAIN.check(size, problem, options, *others)


def _fit(source: ColumnSource, problem: LassoProblem, options: SolverOptions, *others: Any) -> FitResult:
    _refuse(problem, options)
    target_unit(source.target, _variant(options))
    return _PLAIN(source, problem, options, *others)


SGD = Solver(_fit, check=_check, certifies=False, divides_by_lr=lambda options: _variant(options).divide_by_lr)
