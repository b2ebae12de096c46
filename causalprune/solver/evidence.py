"""The result of a fit: γ, its KKT scores, and the evidence that it solves its problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import NumericalError
from causalprune.solver.problem import FittedRows, LassoProblem
from causalprune.solver.region import FittedColumns
from causalprune.solver.source import Float32, Float64
from causalprune.solver.streaming import ScanCosts
from causalprune.solver.working_set import Positions


@dataclass(frozen=True)
class PathPoint:
    """The solution at one α.

    Attributes:
        alpha: α.
        num_nonzero: Nonzero γ.
        objective: Primal objective.
        relative_gap: Duality gap over all columns as a share of ‖y‖²/(2T).
        r2: R² in sample.
        r2_held_out: R² on the last steps of a fit to the others at this α; None if none were held out.
        cv_error: Mean squared error on the left-out folds, as a share of the mean of y²; None without cross-validation.
        cv_error_std: Its standard error over the folds.
    """

    alpha: float
    num_nonzero: int
    objective: float
    relative_gap: float
    r2: float
    r2_held_out: float | None = None
    cv_error: float | None = None
    cv_error_std: float | None = None


@dataclass(frozen=True)
class FitEvidence:
    """The evidence of a fit; the objective is scaled as in :class:`LassoProblem`.

    Attributes:
        solver: Name of the solver.
        solver_version: Changes whenever the solver may give different numbers.
        num_rows: T.
        num_columns: P.
        alpha: α, in units of the columns as normalized.
        alpha_max: The smallest α with γ = 0.
        l1_ratio: ρ.
        objective: Primal objective.
        duality_gap: Objective minus dual objective over all columns, in float64; an upper bound on the suboptimality.
        relative_gap: The gap as a share of ‖y‖²/(2T).
        r2: 1 − ‖y − Xγ‖²/‖y − ȳ‖² in sample; negative when the mean of y explains more.
        r2_held_out: The same on the last steps, of a fit at this α to the steps before them, with ȳ their mean; None
            if none were held out.
        num_nonzero: Nonzero γ.
        num_equicorrelated: Columns with |x̃_kᵀr| = Tαρ: the active ones and those that could take their place.
        unique: Whether γ is the only solution; None if unknown.
        certified: Whether the gap is within the tolerance.
        passes: Columns read, as a multiple of all columns; fits that share the passes are included.
        bytes_read: Stored bytes read.
        dual_correlation_error: Largest error of a KKT score.
        spearman: Rank correlation of |γ| with |Xᵀy|; None when either is constant, and for the exact solver.
        path: The solution at each α of a path.
        warning: What the user should know, or empty.
    """

    solver: str
    num_rows: int
    num_columns: int
    alpha: float
    alpha_max: float
    l1_ratio: float
    objective: float
    duality_gap: float
    relative_gap: float
    r2: float
    num_nonzero: int
    certified: bool
    passes: float
    solver_version: str = ""
    r2_held_out: float | None = None
    num_equicorrelated: int | None = None
    unique: bool | None = None
    bytes_read: int = 0
    dual_correlation_error: float = 0.0
    spearman: float | None = None
    path: tuple[PathPoint, ...] = ()
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON; numbers that aren't finite become None."""

        def finite(items: list[tuple[str, Any]]) -> dict[str, Any]:
            return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in items}

        found = asdict(self, dict_factory=finite)
        return found | {"path": list(found["path"])}


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fit.

    Attributes:
        gamma: (P,) γ in units of loss per unit of X.
        dual_correlation: (P,) |x̃_kᵀr − α(1−ρ)Tγ̃_k|/(T·α·ρ): 1 for active columns, at most 1 at the optimum; without
            the absolute value where γ ≥ 0, and its negative where γ ≤ 0; 0 throughout if α is 0 because no column
            correlates with y.
        evidence: Evidence of the whole fit; for several layers see :func:`combine`.
        layers: Name and evidence of each layer that was fitted by itself.
        extras: Further arrays by name: ``path_*`` (the coefficients at each α, rows of a sparse matrix),
            ``selection_probability`` (P,), ``equicorrelation`` (positions of the columns at the bound).
        seconds: Time spent, by ``read``, ``decode`` and ``product`` (summed over threads) and ``subproblem``. Not
            part of the evidence, because equal fits have equal evidence.
    """

    gamma: Float64
    dual_correlation: Float32
    evidence: FitEvidence
    layers: tuple[tuple[str, FitEvidence], ...] = ()
    extras: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


class NotCertifiedError(NumericalError):
    """The exact solver ran out of passes.

    Args:
        result: The fit, not certified.
        tol: The required relative gap.
        passes: The allowed passes.
        remedy: What to do.
    """

    def __init__(
        self,
        result: FitResult,
        tol: float,
        passes: float,
        remedy: str,
    ) -> None:
        self.result = result
        e = result.evidence
        # The fit itself may be fine.
        gap = (
            "more for one that judges it (held-out steps, folds, resamples)" if e.certified else f"{e.relative_gap:.3g}"
        )
        super().__init__(
            "fit",
            expected=f"a relative duality gap of {tol:g}",
            found=f"{gap} after {e.passes:.3g} of at most {passes:g} passes",
            remedy=remedy,
        )


def sparse_path(
    paths: list[list[tuple[npt.NDArray[np.int64], Float64]]], num_alphas: int
) -> dict[str, npt.NDArray[Any]]:
    """The coefficients of a path as a sparse matrix, one row per α.

    Args:
        paths: For each layer and α, the positions and values of the nonzero γ; empty if nothing could be fitted.
        num_alphas: Number of α.

    Returns:
        ``path_indptr`` (num_alphas + 1,) the start of each row, ``path_indices`` positions, ``path_values`` γ.
    """
    positions, values, starts = [], [], [0]
    for place in range(num_alphas):
        for path in paths:
            if path:
                positions.append(path[place][0])
                values.append(path[place][1])
        starts.append(sum(map(len, positions)))
    return {
        "path_indptr": np.array(starts, np.int64),
        "path_indices": np.concatenate(positions) if positions else np.empty(0, np.int64),
        "path_values": np.concatenate(values) if values else np.empty(0),
    }


SOLVER_VERSION = "4"
"""Changes whenever the exact solver may give different numbers."""


def region_evidence(
    region: FittedColumns,
    rows: FittedRows,
    problem: LassoProblem,
    costs: ScanCosts,
    num_source_columns: int,
    at_bound: Positions,
    dual_correlation_error: float,
) -> FitEvidence:
    """Evidence of the fit of one region.

    Args:
        region: The region. Its tasks are the fit, then the fit without the held-out rows if any, then those without
            each fold, and others.
        rows: The target and its parts.
        problem: The penalty and the scaling.
        costs: Costs of the passes, which all regions share.
        num_source_columns: Columns of all regions together.
        at_bound: The equicorrelation set.
        dual_correlation_error: Largest error of a KKT score.
    """
    task, solution = region.tasks[0], region.ranking.solution
    unit = rows.norm**2
    warning = ""
    points = [_point(region, rows, place) for place in range(len(task.solutions))]
    if rows.folds and points:
        errors = fold_errors(region, rows)
        mean, spread = errors.mean(axis=0), errors.std(axis=0, ddof=1) / np.sqrt(len(errors))
        points = [
            replace(p, cv_error=float(m), cv_error_std=float(s)) for p, m, s in zip(points, mean, spread, strict=True)
        ]
    if solution is None:
        warning = "no column correlates with the loss change: every γ is 0"
        chosen = PathPoint(problem.alpha or 0.0, 0, task.null * unit, 0.0, rows.r2(np.zeros(len(rows.target))))
    else:
        assert region.ranking.place is not None
        chosen = points[region.ranking.place]
        if problem.num_alphas == 0 and chosen.alpha >= region.alpha_max:
            warning = f"alpha {chosen.alpha:.4g} is not below alpha_max {region.alpha_max:.4g}: every γ is 0"
        wanted = task.num_nonzero
        if wanted is not None and chosen.num_nonzero != wanted:
            warning = f"{chosen.num_nonzero:,} nonzero γ instead of {wanted:,}, the nearest there is"
    return FitEvidence(
        solver="lasso",
        solver_version=SOLVER_VERSION,
        num_rows=len(rows.target),
        num_columns=region.stop - region.start,
        alpha=chosen.alpha,
        alpha_max=region.alpha_max,
        l1_ratio=problem.l1_ratio,
        objective=chosen.objective,
        duality_gap=0.0 if solution is None else solution.gap * unit,
        relative_gap=max((p.relative_gap for p in points), default=0.0),
        r2=chosen.r2,
        r2_held_out=chosen.r2_held_out,
        num_nonzero=chosen.num_nonzero,
        num_equicorrelated=len(at_bound),
        unique=region.ranking.is_unique(at_bound),
        certified=all(task.done(s) for s in task.solutions),
        passes=costs.columns / num_source_columns,
        bytes_read=costs.bytes_read,
        dual_correlation_error=dual_correlation_error,
        path=tuple(points) if problem.num_alphas else (),
        warning=warning,
    )


def fold_errors(region: FittedColumns, rows: FittedRows) -> Float64:
    """(folds, α) mean squared error on each fold of the fit without it, as a share of the mean of y²."""
    first = 1 + len(rows.side_rows) - len(rows.folds)
    errors = np.empty((len(rows.folds), len(region.tasks[0].solutions)))
    for fold in range(len(rows.folds)):
        for place, solution in enumerate(region.tasks[first + fold].solutions):
            errors[fold, place] = rows.error(region.predict(solution), fold)
    return errors


def _point(region: FittedColumns, rows: FittedRows, place: int) -> PathPoint:
    task, solution = region.tasks[0], region.tasks[0].solutions[place]
    held_out = None
    if rows.tail.any():
        held_out = rows.r2(region.predict(region.tasks[1].solutions[place]), rows.tail)
    return PathPoint(
        solution.alpha,
        len(solution.ids),
        solution.objective * rows.norm**2,
        solution.gap / task.null,
        rows.r2(region.predict(solution)),
        held_out,
    )


def combine(layers: Sequence[tuple[str, FitEvidence]]) -> FitEvidence:
    """Evidence of the fits of several layers together: sums, the worst gap and the mean R².

    Args:
        layers: Name and evidence of each layer.
    """
    parts = [evidence for _, evidence in layers]
    worst = max(parts, key=lambda e: (e.alpha_max > 0, e.relative_gap))
    held_out = [e.r2_held_out for e in parts if e.r2_held_out is not None]
    equicorrelated = [e.num_equicorrelated for e in parts if e.num_equicorrelated is not None]
    return replace(
        worst,
        num_columns=sum(e.num_columns for e in parts),
        objective=sum(e.objective for e in parts),
        num_nonzero=sum(e.num_nonzero for e in parts),
        num_equicorrelated=sum(equicorrelated) if len(equicorrelated) == len(parts) else None,
        unique=None if any(e.unique is None for e in parts) else all(e.unique for e in parts),
        r2=float(np.mean([e.r2 for e in parts])),
        r2_held_out=float(np.mean(held_out)) if held_out else None,
        dual_correlation_error=max(e.dual_correlation_error for e in parts),
        spearman=None,
        certified=all(e.certified for e in parts),
        path=(),
        warning="; ".join(f"{name}: {e.warning}" for name, e in layers if e.warning),
    )


def spearman(
    first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]
) -> tuple[float, float] | tuple[None, None]:
    """Rank correlation of two vectors of the same length and its two-sided p-value; None if either is constant."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None, None
    found = spearmanr(first, second)
    return float(found.statistic), float(found.pvalue)
