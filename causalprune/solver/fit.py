"""Entry of the room: :func:`fit` fits γ with a solver of the registry.

:class:`PlainSolver` is what a further solver needs: it scales the columns before, and certifies the result after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from causalprune.base.errors import UsageError
from causalprune.solver.certificate import Penalty, certify, signed
from causalprune.solver.evidence import FitEvidence, FitResult, NotCertifiedError, combine, spearman
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import (
    LassoProblem,
    SolverOptions,
    check_target,
    no_correlation,
    no_movement,
    not_finite,
)
from causalprune.solver.process_group import ProcessGroup
from causalprune.solver.source import ColumnRange, ColumnSource, Float64, Size
from causalprune.solver.streaming import Notify

Ranges = Sequence[tuple[str, int, int]]
"""(name, first column, stop) of each layer to fit by itself."""


@dataclass(frozen=True)
class Solver:
    """A way to fit γ, an entry of :data:`causalprune.solver.names.SOLVERS`.

    Attributes:
        fit: ``fit(source, problem, options, ranges, notify, group)`` returns a FitResult; the arguments are those of
            :func:`fit`. An option that the solver doesn't support is a UsageError.
        assist: ``assist(source, problem, options, ranges, group)``, which the other processes call while the first one
            calls ``fit``; None if the solver runs in one process only.
        check: ``check(size, problem, options, ranges, processes)`` raises what ``fit`` would raise for X of this size,
            whatever is in it; it is asked before anything is recorded, which takes hours. Ours ask it in ``fit``, too.
        certifies: Whether the solver is meant to certify its fits, so that one that isn't certified has failed.
        divides_by_lr: Whether, with these options, the columns have to be Δθ²/η² whatever the problem says.
    """

    fit: Callable[..., FitResult]
    assist: Callable[..., None] | None = None
    check: Callable[..., None] = lambda *_: None
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
        solver: Name of the solver.
        ranges: (name, first column, stop) of each layer to fit by itself.
        notify: Called after each block that a streaming solver reads.
        group: The processes that divide the columns, of which this is the first; by default this one alone.

    Raises:
        UsageError: An unknown solver or preset, options that the solver doesn't support, or too little memory.
        DataError: X or y that can't be fitted.
        NumericalError: The solver couldn't certify its result.
    """
    chosen: Solver = SOLVERS.load(solver)
    return chosen.fit(source, problem, options or SolverOptions(), ranges, notify, group)


@dataclass(frozen=True, eq=False)
class Scan:
    """What a pass over the columns computes.

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
        raise not_finite(int(np.flatnonzero(~np.isfinite(norm))[0]))
    scale = np.zeros_like(norm)
    if normalize == "none":
        scale[norm > 0] = 1.0
    elif norm.any():
        np.divide(1.0, norm, where=norm > 0, out=scale)
    return Scan(scale, correlation * scale)


@dataclass(frozen=True, eq=False)
class Attempt:
    """A solver's coefficients for one range of columns.

    Attributes:
        coefficients: (P,) γ̃ of the scaled columns.
        alpha: α > 0 of the problem that they are certified for.
        passes: Passes over the columns, or sweeps.
    """

    coefficients: Float64
    alpha: float
    passes: int


@dataclass(frozen=True)
class PlainSolver:
    """Fits each range of columns with a pass before, which scales them, and passes after, which certify the result.

    Attributes:
        solve: ``solve(source, problem, options, scan, alpha_max)`` returns an :class:`Attempt`; called if
            alpha_max > 0.
        label: Name of the solver with these options in the evidence; its first word is the solver's name.
        certifies: Whether a result that isn't certified is an error.
        require: ``require(num_rows, num_columns, options)`` refuses a range of columns that is too large.
    """

    solve: Callable[[ColumnSource, LassoProblem, SolverOptions, Scan, float], Attempt]
    label: Callable[[SolverOptions], str]
    certifies: bool = True
    require: Callable[[int, int, SolverOptions], None] = lambda *_: None

    def __call__(
        self,
        source: ColumnSource,
        problem: LassoProblem,
        options: SolverOptions,
        ranges: Ranges | None = None,
        *_: object,
    ) -> FitResult:
        """Fit; the arguments are those of :func:`fit`.

        Raises:
            UsageError: Options that only the exact solver supports.
            DataError: X or y that can't be fitted.
            NotCertifiedError: The duality gap is above the tolerance.
        """
        self.check(source, problem, options, ranges)
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

    def check(
        self, size: Size, problem: LassoProblem, options: SolverOptions, ranges: Ranges | None = None, *_: object
    ) -> None:
        """Refuse what doesn't depend on the numbers in X; see :class:`Solver`.

        Raises:
            UsageError: Options that only the exact solver supports, or X that is too large.
        """
        asked = {
            "`alphas`": problem.num_alphas,
            "`target_nonzero`": problem.target_nonzero,
            "`target_sparsity`": problem.target_sparsity,
            "`cv`": options.folds,
            "`bootstrap`": options.resamples,
            "`row_weights`": options.row_weights is not None,
            "`device`": options.device != "cpu",
        }
        self.refuse(options, asked)
        for _name, start, stop in ranges or [("", 0, size.num_columns)]:
            self.require(size.num_rows, stop - start, options)

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
            problem.check_alpha(alpha_max)
            attempt = self.solve(source, problem, options, scanned, alpha_max)
            if self.certifies and attempt.alpha >= alpha_max:
                warning = f"alpha {attempt.alpha:.4g} is not below alpha_max {alpha_max:.4g}: every γ is 0"
        elif layer:
            warning = "no column correlates with the loss change: every γ is 0"
            attempt = Attempt(np.zeros(source.num_columns), problem.alphas(alpha_max)[0], 0)
        else:
            raise no_correlation()
        gamma = scanned.scale * attempt.coefficients
        products = (block.astype(np.float64) @ gamma[i : i + block.shape[1]] for i, block in source.blocks())
        residual = y - sum(products, np.zeros(T))
        penalty = Penalty(attempt.alpha * problem.l1_ratio, attempt.alpha * (1 - problem.l1_ratio))
        found, correlation = certify(source, scanned.scale, attempt.coefficients, residual, penalty, problem.sign)
        null = float(y @ y) / (2 * T)
        if found.objective > null and not self.certifies:
            worse = f"the objective {found.objective:.3g} is worse than γ = 0's {null:.3g}"
            warning = f"{worse}: the steps are too long"
        relative_gap = found.gap / null
        plain = np.divide(scanned.correlation, scanned.scale, where=scanned.scale > 0, out=np.zeros_like(gamma))
        evidence = FitEvidence(
            solver=self.label(options),
            num_rows=T,
            num_columns=source.num_columns,
            alpha=attempt.alpha,
            alpha_max=alpha_max,
            l1_ratio=problem.l1_ratio,
            objective=found.objective,
            duality_gap=found.gap,
            relative_gap=relative_gap,
            r2=1.0 - float(residual @ residual) / float(((y - y.mean()) ** 2).sum()),
            num_nonzero=int(np.count_nonzero(attempt.coefficients)),
            passes=attempt.passes,
            spearman=spearman(np.abs(gamma), np.abs(plain))[0],
            certified=self.certifies and relative_gap <= problem.tol,
            warning=warning,
        )
        bound = T * penalty.l1
        scores = signed(correlation, problem.sign) / bound if bound > 0 else np.zeros_like(gamma)
        with np.errstate(over="ignore"):
            result = FitResult(gamma, scores.astype(np.float32), evidence)
        if self.certifies and not evidence.certified:
            one_pass = replace(result, evidence=replace(evidence, passes=1))
            raise NotCertifiedError(one_pass, problem.tol, 1, remedy="raise `tol`, or use `solver=lasso`")
        return result
