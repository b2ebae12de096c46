"""Fit γ with one of the solvers; what those share that certify a range of columns only at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from causalprune.base.errors import DataError, UsageError
from causalprune.solver.certificate import Penalty, certify, signed
from causalprune.solver.evidence import FitEvidence, FitResult, NotCertifiedError, combine, spearman
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import LassoProblem, SolverOptions, check_target, no_correlation, no_movement
from causalprune.solver.process_group import ProcessGroup
from causalprune.solver.source import ColumnRange, ColumnSource, Float64
from causalprune.solver.streaming import Notify
from causalprune.solver.working_set import NORM_FLOOR

Ranges = Sequence[tuple[str, int, int]]
"""(name, first column, stop) of layers to be fitted each by itself."""


@dataclass(frozen=True)
class Solver:
    """A way to fit γ; :data:`causalprune.solver.names.SOLVERS` has them by name.

    Attributes:
        fit: ``fit(source, problem, options, ranges, notify, group)`` gives a FitResult; the arguments are those of
            :func:`fit`. An option that the solver doesn't know is a UsageError.
        assist: What the other processes of a group call, with the arguments of ``fit`` but ``notify``, while the first
            one fits; None where it fits in one process only.
        certifies: Whether a fit that isn't certified is one that it gave up.
        divides_by_lr: Whether the columns are to be Δθ²/η² for these options, whatever the problem says.
    """

    fit: Callable[..., FitResult]
    assist: Callable[..., None] | None = None
    certifies: bool = True
    divides_by_lr: Callable[[SolverOptions], bool] = lambda _: False


def fit(
    source: ColumnSource,
    problem: LassoProblem,
    options: SolverOptions | None = None,
    *,
    solver: str = "lasso",
    ranges: Ranges | None = None,
    notify: Notify | None = None,
    group: ProcessGroup | None = None,
) -> FitResult:
    """Fit γ over all columns, or over each of several ranges of them by itself.

    Args:
        source: X (T, P) and y (T,).
        problem: The penalty and the scaling.
        options: Memory, seed, side fits and the rest.
        solver: Name in :data:`causalprune.solver.names.SOLVERS`.
        ranges: (name, first column, stop) of layers to be fitted each by itself.
        notify: Called with each block that a streaming solver read.
        group: The processes that divide the columns, of which this is the first.

    Raises:
        UsageError: An unknown solver or preset, options that a solver doesn't know, or too little memory.
        DataError: X or y that no fit can be made of.
        NumericalError: The solver couldn't certify its result.
    """
    chosen: Solver = SOLVERS.load(solver)
    return chosen.fit(source, problem, options or SolverOptions(), ranges, notify, group)


@dataclass(frozen=True, eq=False)
class Scan:
    """What one pass over the columns finds.

    Attributes:
        scale: (P,) s_k in X̃ = X·diag(s); 0 for a column of zeros.
        correlation: (P,) x̃_kᵀy.
    """

    scale: Float64
    correlation: Float64


def scan(source: ColumnSource, normalize: str) -> Scan:
    """Pass over the columns once, in float64.

    Raises:
        DataError: Fewer than two rows, a constant y, NaN or infinity.
    """
    y = source.target
    check_target(y)
    norm = np.zeros(source.num_columns)
    correlation = np.zeros(source.num_columns)
    for first, block in source.blocks():
        wide = block.astype(np.float64)
        part = slice(first, first + block.shape[1])
        norm[part] = np.sqrt(np.einsum("ij,ij->j", wide, wide))
        correlation[part] = y @ wide
    if not np.isfinite(norm).all():
        raise DataError(
            f"column {int(np.flatnonzero(~np.isfinite(norm))[0])} of X",
            expected="finite numbers",
            found="NaN or infinity",
        )
    scale = np.zeros_like(norm)
    if normalize == "none":
        scale[norm > 0] = 1.0
    elif norm.any():
        np.divide(1.0, np.maximum(norm, NORM_FLOOR * norm.max()), where=norm > 0, out=scale)
    return Scan(scale, correlation * scale)


@dataclass(frozen=True, eq=False)
class Attempt:
    """What a solver made of one range of columns.

    Attributes:
        coefficients: (P,) γ̃ of the scaled columns.
        alpha: α > 0 of the problem that they are to be judged by.
        passes: Passes over the columns, or sweeps.
    """

    coefficients: Float64
    alpha: float
    passes: int


@dataclass(frozen=True)
class PlainSolver:
    """Fits each range of columns with one pass before, which scales them, and one after, which certifies the result.

    Attributes:
        solve: ``solve(source, problem, options, scan, alpha_max)``, called where alpha_max > 0.
        label: What the evidence calls the solver with these options; its first word is the solver's name.
        certifies: Whether a result that isn't certified is an error.
    """

    solve: Callable[[ColumnSource, LassoProblem, SolverOptions, Scan, float], Attempt]
    label: Callable[[SolverOptions], str]
    certifies: bool = True

    def __call__(
        self,
        source: ColumnSource,
        problem: LassoProblem,
        options: SolverOptions,
        ranges: Ranges | None = None,
        notify: Notify | None = None,
        group: ProcessGroup | None = None,
    ) -> FitResult:
        """Fit; see :func:`fit`.

        Raises:
            UsageError: Options that only the exact solver knows.
            DataError: X or y that no fit can be made of.
            NotCertifiedError: The duality gap is above the tolerance.
        """
        del notify, group
        asked = {
            "`alphas`": problem.num_alphas,
            "`target_nonzero`": problem.target_nonzero,
            "`target_sparsity`": problem.target_sparsity,
            "`cv`": options.folds,
            "`bootstrap`": options.resamples,
            "`row_weights`": options.row_weights is not None,
        }
        self.refuse(options, asked)
        if ranges is None:
            return self._fit_one(source, problem, options, layer=False)
        parts = [
            (name, self._fit_one(ColumnRange(source, start, stop), problem, options, layer=True))
            for name, start, stop in ranges
        ]
        if all(r.evidence.alpha_max == 0 for _, r in parts):
            raise no_movement()
        layers = tuple((name, r.evidence) for name, r in parts)
        gamma, scores = (np.concatenate([getattr(r, n) for _, r in parts]) for n in ("gamma", "dual_correlation"))
        return FitResult(gamma, scores, combine(layers), layers)

    def refuse(self, options: SolverOptions, asked: Mapping[str, object]) -> None:
        """Raise UsageError if anything is asked for that only the exact solver can do, by its parameter."""
        for name, value in asked.items():
            if value:
                found = f"`solver={self.label(options).partition(' ')[0]}`"
                raise UsageError(name, expected="`solver=lasso` beside it", found=found)

    def _fit_one(
        self, source: ColumnSource, problem: LassoProblem, options: SolverOptions, *, layer: bool
    ) -> FitResult:
        T, y = source.num_rows, source.target
        scanned = scan(source, problem.normalize)
        if not scanned.scale.any() and not layer:
            raise no_movement()
        alpha_max = max(0.0, float(signed(scanned.correlation, problem.sign).max())) / (T * problem.l1_ratio)
        warning = ""
        if alpha_max > 0:
            attempt = self.solve(source, problem, options, scanned, alpha_max)
            if self.certifies and attempt.alpha >= alpha_max:
                warning = f"alpha {attempt.alpha:.4g} is not below alpha_max {alpha_max:.4g}: every γ is 0"
        elif layer:
            warning = "no column correlates with the loss change: every γ is 0"
            attempt = Attempt(np.zeros(source.num_columns), problem.alphas(alpha_max)[0], 0)
        else:
            raise no_correlation()
        gamma = scanned.scale * attempt.coefficients
        residual = y - _predict(source, gamma)
        penalty = Penalty(attempt.alpha * problem.l1_ratio, attempt.alpha * (1 - problem.l1_ratio))
        certificate = certify(source, scanned.scale, attempt.coefficients, residual, penalty, problem.sign)
        null = float(y @ y) / (2 * T)
        if certificate.objective > null and not self.certifies:
            worse = f"the objective {certificate.objective:.3g} is worse than γ = 0's {null:.3g}"
            warning = f"{worse}: the steps are too long"
        relative_gap = certificate.gap / null
        plain = np.divide(scanned.correlation, scanned.scale, where=scanned.scale > 0, out=np.zeros_like(gamma))
        evidence = FitEvidence(
            solver=self.label(options),
            num_rows=T,
            num_columns=source.num_columns,
            alpha=attempt.alpha,
            alpha_max=alpha_max,
            l1_ratio=problem.l1_ratio,
            objective=certificate.objective,
            duality_gap=certificate.gap,
            relative_gap=relative_gap,
            r2=1.0 - float(residual @ residual) / float(((y - y.mean()) ** 2).sum()),
            num_nonzero=int(np.count_nonzero(attempt.coefficients)),
            passes=attempt.passes,
            spearman=spearman(np.abs(gamma), np.abs(plain))[0],
            certified=self.certifies and relative_gap <= problem.tol,
            warning=warning,
        )
        bound = T * penalty.l1
        scores = np.abs(certificate.correlation) / bound if bound > 0 else np.zeros_like(gamma)
        result = FitResult(gamma, scores.astype(np.float32), evidence)
        if self.certifies and not evidence.certified:
            raise NotCertifiedError(replace(result, evidence=replace(evidence, passes=1)), problem.tol, 1)
        return result


def _predict(source: ColumnSource, gamma: Float64) -> Float64:
    """Xγ in float64."""
    prediction = np.zeros(source.num_rows)
    for first, block in source.blocks():
        prediction += block.astype(np.float64) @ gamma[first : first + block.shape[1]]
    return prediction
