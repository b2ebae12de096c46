"""Fit γ: choose α, solve, prove, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from causalprune.errors import DataError, UsageError
from causalprune.solver.certificate import certify
from causalprune.solver.lasso import solve_lasso
from causalprune.solver.problem import LassoProblem, scan
from causalprune.solver.result import FitEvidence, FitResult
from causalprune.solver.source import ColumnRange, ColumnSource, Float64
from causalprune.solver.truncated_gradient import PRESETS, solve_truncated_gradient, target_unit


def fit(
    source: ColumnSource,
    problem: LassoProblem,
    *,
    solver: str = "lasso",
    preset: str = "june-2025",
    memory_bytes: int = 2**31,
    seed: int = 0,
    ranges: Sequence[tuple[str, int, int]] | None = None,
) -> FitResult:
    """Fit γ over all columns, or over each of several ranges of them by itself.

    Args:
        source: X (T, P) and y (T,).
        problem: The penalty and the scaling.
        solver: ``lasso`` (exact, certified) or ``sgd`` (the authors', not certified).
        preset: Variant of ``sgd``.
        memory_bytes: Bound on the columns held in memory.
        seed: Seed of ``sgd``.
        ranges: (name, first column, stop) of layers to be fitted each by itself.

    Raises:
        UsageError: An unknown solver or preset, or too little memory.
        DataError: X or y that no fit can be made of.
        NumericalError: The exact solver couldn't certify its result.
    """
    if solver not in ("lasso", "sgd"):
        raise UsageError("--solver", expected="lasso or sgd", found=repr(solver))
    if preset not in PRESETS:
        raise UsageError("--preset", expected="one of " + ", ".join(PRESETS), found=repr(preset))
    if ranges is None:
        return _fit_one(source, problem, solver, preset, memory_bytes, seed)
    parts = []
    for name, start, stop in ranges:
        part = _fit_one(ColumnRange(source, start, stop), problem, solver, preset, memory_bytes, seed, layer=True)
        parts.append((name, part))
    results = [part for _, part in parts]
    if all(r.evidence.alpha_max == 0 for r in results):
        raise _no_movement()
    worst = max((r.evidence for r in results), key=lambda e: (e.alpha_max > 0, e.relative_gap))
    evidence = replace(
        worst,
        num_columns=sum(r.evidence.num_columns for r in results),
        objective=sum(r.evidence.objective for r in results),
        num_nonzero=sum(r.evidence.num_nonzero for r in results),
        num_iterations=sum(r.evidence.num_iterations for r in results),
        r2=float(np.mean([r.evidence.r2 for r in results])),
        spearman=None,
        certified=all(r.evidence.certified for r in results),
        warning="; ".join(f"{name}: {r.evidence.warning}" for name, r in parts if r.evidence.warning),
    )
    return FitResult(
        np.concatenate([r.gamma for r in results]),
        np.concatenate([r.dual_correlation for r in results]),
        evidence,
        tuple((name, r.evidence) for name, r in parts),
    )


def _fit_one(
    source: ColumnSource,
    problem: LassoProblem,
    solver: str,
    preset: str,
    memory_bytes: int,
    seed: int,
    *,
    layer: bool = False,
) -> FitResult:
    T, y = source.num_rows, source.target
    scanned = scan(source, problem.normalize)
    if scanned.unit == 0 and not layer:
        raise _no_movement()
    # α is that of y; the authors' belongs to y as the variant divides it.
    divisor = abs(target_unit(y, PRESETS[preset])) if solver == "sgd" else 1.0
    alpha_max = float(np.abs(scanned.correlation).max()) / (T * problem.l1_ratio)
    if alpha_max == 0 and not layer:
        raise DataError(
            "recorded deltas",
            expected="a column that correlates with the loss change",
            found="none",
            remedy="record more steps",
        )
    alpha = problem.choose_alpha(alpha_max)
    warning = ""
    if alpha_max == 0:
        warning = "no column correlates with the loss change: every γ is 0"
        coefficients, residual, iterations = np.zeros(source.num_columns), y.copy(), 0
        certificate = certify(source, scanned.scale, coefficients, residual, alpha, problem.l1_ratio)
    elif solver == "lasso":
        if alpha >= alpha_max:
            warning = f"alpha {alpha:.4g} is not below alpha_max {alpha_max:.4g}: every γ is 0"
        # The same problem in columns of order 1, exactly: with X̂ = uX̃ and γ̂ = γ̃/u the L1 penalty is uαρ·‖γ̂‖₁ and
        # the ridge u²α(1−ρ)/2·‖γ̂‖². A power of two loses no bit and keeps squares of 1e-12 from underflowing.
        unit = scanned.unit
        l1, ridge = unit * alpha * problem.l1_ratio, unit * unit * alpha * (1.0 - problem.l1_ratio)
        lifted = replace(problem, alpha=None, l1_ratio=l1 / (l1 + ridge))
        solution = solve_lasso(source, lifted, unit * scanned.scale, l1 + ridge, memory_bytes)
        coefficients, residual, iterations = unit * solution.coefficients, solution.residual, solution.iterations
        certificate = replace(solution.certificate, correlation=solution.certificate.correlation / unit)
    else:
        config = PRESETS[preset]
        if config.alpha_times_columns is not None and problem.alpha is None and problem.alpha_ratio is None:
            alpha = divisor * config.alpha_times_columns / source.num_columns
        coefficients, iterations = solve_truncated_gradient(source, scanned.scale, alpha / divisor, config, seed)
        # Without a penalty there is no Lasso to be certified; the gap is that of the smallest α that can be said.
        alpha = max(alpha, 1e-12 * alpha_max)
        residual = y - _predict(source, scanned.scale * coefficients)
        certificate = certify(source, scanned.scale, coefficients, residual, alpha, problem.l1_ratio)
    null = float(y @ y) / (2 * T)
    if certificate.objective > null and solver == "sgd":
        warning = f"the objective {certificate.objective:.3g} is worse than γ = 0's {null:.3g}: the steps are too long"
    relative_gap = certificate.gap / null
    gamma = scanned.scale * coefficients
    plain = np.divide(scanned.correlation, scanned.scale, where=scanned.scale > 0, out=np.zeros_like(gamma))
    evidence = FitEvidence(
        solver=solver if solver == "lasso" else f"{solver} {preset}",
        num_rows=T,
        num_columns=source.num_columns,
        alpha=alpha,
        alpha_max=alpha_max,
        l1_ratio=problem.l1_ratio,
        objective=certificate.objective,
        duality_gap=certificate.gap,
        relative_gap=relative_gap,
        r2=1.0 - float(residual @ residual) / float(((y - y.mean()) ** 2).sum()),
        num_nonzero=int(np.count_nonzero(coefficients)),
        num_iterations=iterations,
        spearman=_spearman(np.abs(gamma), np.abs(plain)),
        certified=solver == "lasso" and relative_gap <= problem.tol,
        warning=warning,
    )
    bound = T * alpha * problem.l1_ratio
    dual = np.abs(certificate.correlation) / bound if bound > 0 else np.zeros_like(gamma)
    return FitResult(gamma, dual.astype(np.float32), evidence)


def _no_movement() -> DataError:
    return DataError("recorded deltas", expected="weights that move", found="zeros only", remedy="raise --lr")


def _predict(source: ColumnSource, gamma: Float64) -> Float64:
    """Xγ in float64."""
    prediction = np.zeros(source.num_rows)
    for first, block in source.blocks():
        prediction += block.astype(np.float64) @ gamma[first : first + block.shape[1]]
    return prediction


def _spearman(a: Float64, b: Float64) -> float | None:
    from scipy.stats import spearmanr

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)
