"""Fit γ: exactly, by scikit-learn, or as the authors do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from causalprune.columns import ColumnSource, Float64
from causalprune.errors import UsageError
from causalprune.solver.certificate import Penalty, certify, signed
from causalprune.solver.evidence import combine, spearman
from causalprune.solver.exact_fit import ExactOptions, fit_exactly
from causalprune.solver.problem import LassoProblem, no_correlation, no_movement
from causalprune.solver.reference import solve_sklearn
from causalprune.solver.result import FitEvidence, FitResult, NotCertifiedError
from causalprune.solver.scan import scan
from causalprune.solver.source import ColumnRange
from causalprune.solver.streaming import Notify
from causalprune.solver.team import Team
from causalprune.solver.truncated_gradient import PRESETS, solve_truncated_gradient, target_unit

SOLVERS = ("lasso", "sklearn", "sgd")


def fit(
    source: ColumnSource,
    problem: LassoProblem,
    *,
    solver: str = "lasso",
    preset: str = "june-2025",
    options: ExactOptions | None = None,
    ranges: Sequence[tuple[str, int, int]] | None = None,
    notify: Notify | None = None,
    team: Team | None = None,
) -> FitResult:
    """Fit γ over all columns, or over each of several ranges of them by itself.

    Args:
        source: X (T, P) and y (T,).
        problem: The penalty and the scaling.
        solver: ``lasso`` (exact, certified, streaming), ``sklearn`` (in memory) or ``sgd`` (the authors').
        preset: Variant of ``sgd``.
        options: Memory, seed and side fits; only ``lasso`` knows side fits.
        ranges: (name, first column, stop) of layers to be fitted each by itself.
        notify: Called with each block that the exact solver read.
        team: The processes that divide the columns, of which this is the first; only ``lasso`` knows them.

    Raises:
        UsageError: An unknown solver or preset, options that a solver doesn't know, or too little memory.
        DataError: X or y that no fit can be made of.
        NumericalError: The solver couldn't certify its result.
    """
    options = options or ExactOptions()
    if solver not in SOLVERS:
        raise UsageError("--solver", expected="one of " + ", ".join(SOLVERS), found=repr(solver))
    if preset not in PRESETS:
        raise UsageError("--preset", expected="one of " + ", ".join(PRESETS), found=repr(preset))
    if solver == "lasso":
        return fit_exactly(source, problem, options, ranges, notify, team)
    _require_plain(solver, problem, options)
    if ranges is None:
        return _fit_one(source, problem, solver, preset, options)
    parts = []
    for name, start, stop in ranges:
        part = _fit_one(ColumnRange(source, start, stop), problem, solver, preset, options, layer=True)
        parts.append((name, part))
    if all(r.evidence.alpha_max == 0 for _, r in parts):
        raise no_movement()
    layers = tuple((name, r.evidence) for name, r in parts)
    return FitResult(
        np.concatenate([r.gamma for _, r in parts]),
        np.concatenate([r.dual_correlation for _, r in parts]),
        combine(layers),
        layers,
    )


def _require_plain(solver: str, problem: LassoProblem, options: ExactOptions) -> None:
    asked = {
        "--alphas": problem.num_alphas,
        "--target-nonzero": problem.target_nonzero,
        "--target-sparsity": problem.target_sparsity,
        "--positive and --negative": problem.sign if solver == "sgd" else 0,
        "--l1-ratio": problem.l1_ratio < 1 if solver == "sgd" else False,
        "--cv": options.folds,
        "--bootstrap": options.resamples,
        "--row-weights": options.row_weights is not None,
    }
    for name, value in asked.items():
        if value:
            raise UsageError(name, expected="--solver lasso beside it", found=f"--solver {solver}")


def _fit_one(
    source: ColumnSource,
    problem: LassoProblem,
    solver: str,
    preset: str,
    options: ExactOptions,
    *,
    layer: bool = False,
) -> FitResult:
    T, y = source.num_rows, source.target
    scanned = scan(source, problem.normalize)
    if not scanned.scale.any() and not layer:
        raise no_movement()
    # α is that of y; the authors' belongs to y as the variant divides it.
    divisor = abs(target_unit(y, PRESETS[preset])) if solver == "sgd" else 1.0
    alpha_max = max(0.0, float(signed(scanned.correlation, problem.sign).max())) / (T * problem.l1_ratio)
    if alpha_max == 0 and not layer:
        raise no_correlation()
    (alpha,) = problem.alphas(alpha_max)
    warning, passes = "", 0
    if alpha_max == 0:
        warning = "no column correlates with the loss change: every γ is 0"
        coefficients, residual = np.zeros(source.num_columns), y.copy()
    elif solver == "sklearn":
        if alpha >= alpha_max:
            warning = f"alpha {alpha:.4g} is not below alpha_max {alpha_max:.4g}: every γ is 0"
        coefficients, passes = solve_sklearn(source, problem, scanned.scale, alpha, options.memory_bytes)
        residual = y - _predict(source, scanned.scale * coefficients)
    else:
        config = PRESETS[preset]
        if config.alpha_times_columns is not None and problem.alpha is None and problem.alpha_ratio is None:
            alpha = divisor * config.alpha_times_columns / source.num_columns
        coefficients, passes = solve_truncated_gradient(source, scanned.scale, alpha / divisor, config, options.seed)
        # Without a penalty there is no Lasso to be certified; the gap is that of the smallest α that can be said.
        alpha = max(alpha, 1e-12 * alpha_max)
        residual = y - _predict(source, scanned.scale * coefficients)
    penalty = Penalty(alpha * problem.l1_ratio, alpha * (1 - problem.l1_ratio))
    certificate = certify(source, scanned.scale, coefficients, residual, penalty, problem.sign)
    null = float(y @ y) / (2 * T)
    if certificate.objective > null and solver == "sgd":
        warning = f"the objective {certificate.objective:.3g} is worse than γ = 0's {null:.3g}: the steps are too long"
    relative_gap = certificate.gap / null
    gamma = scanned.scale * coefficients
    plain = np.divide(scanned.correlation, scanned.scale, where=scanned.scale > 0, out=np.zeros_like(gamma))
    evidence = FitEvidence(
        solver=f"sgd {preset}" if solver == "sgd" else solver,
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
        passes=passes,
        spearman=spearman(np.abs(gamma), np.abs(plain))[0],
        certified=solver != "sgd" and relative_gap <= problem.tol,
        warning=warning,
    )
    bound = T * penalty.l1
    dual = np.abs(certificate.correlation) / bound if bound > 0 else np.zeros_like(gamma)
    result = FitResult(gamma, dual.astype(np.float32), evidence)
    if solver == "sklearn" and not evidence.certified:
        raise NotCertifiedError(replace(result, evidence=replace(evidence, passes=1)), problem.tol, 1)
    return result


def _predict(source: ColumnSource, gamma: Float64) -> Float64:
    """Xγ in float64."""
    prediction = np.zeros(source.num_rows)
    for first, block in source.blocks():
        prediction += block.astype(np.float64) @ gamma[first : first + block.shape[1]]
    return prediction
