"""What an exact fit shows for itself, once its regions are solved and proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from causalprune.columns import Float64
from causalprune.solver.fitted_rows import FittedRows
from causalprune.solver.pool import Positions
from causalprune.solver.problem import LassoProblem
from causalprune.solver.region import Region
from causalprune.solver.result import FitEvidence, PathPoint
from causalprune.solver.streaming import ScanCosts

SOLVER_VERSION = "2"
"""Changes whenever the solver may give other numbers."""


def region_evidence(
    region: Region,
    rows: FittedRows,
    problem: LassoProblem,
    costs: ScanCosts,
    num_source_columns: int,
    at_bound: Positions,
    dual_correlation_error: float,
) -> FitEvidence:
    """Evidence of the fit to one region.

    Args:
        region: Its tasks are the fit, the fit without the rows held out, if any, those without each fold, and others.
        rows: The target and its parts.
        problem: The penalty and the scaling.
        costs: Of the passes, which all regions share.
        num_source_columns: Columns of all regions, of which a pass reads each once.
        at_bound: The equicorrelation set.
        dual_correlation_error: How far dual correlations may be off.
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


def fold_errors(region: Region, rows: FittedRows) -> Float64:
    """(folds, α) mean squared error on the rows left out, as a share of the mean of y²."""
    first = 1 + len(rows.side_rows) - len(rows.folds)
    errors = np.empty((len(rows.folds), len(region.tasks[0].solutions)))
    for fold in range(len(rows.folds)):
        for place, solution in enumerate(region.tasks[first + fold].solutions):
            errors[fold, place] = rows.error(region.predict(solution), fold)
    return errors


def _point(region: Region, rows: FittedRows, place: int) -> PathPoint:
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
    """Evidence of fits to several layers, each by itself: sums, the worst gap, the mean R²."""
    parts = [evidence for _, evidence in layers]
    worst = max(parts, key=lambda e: (e.alpha_max > 0, e.relative_gap))
    held_out = [e.r2_held_out for e in parts if e.r2_held_out is not None]
    return replace(
        worst,
        num_columns=sum(e.num_columns for e in parts),
        objective=sum(e.objective for e in parts),
        num_nonzero=sum(e.num_nonzero for e in parts),
        num_equicorrelated=_sum_known([e.num_equicorrelated for e in parts]),
        unique=None if any(e.unique is None for e in parts) else all(e.unique for e in parts),
        r2=float(np.mean([e.r2 for e in parts])),
        r2_held_out=float(np.mean(held_out)) if held_out else None,
        dual_correlation_error=max(e.dual_correlation_error for e in parts),
        spearman=None,
        certified=all(e.certified for e in parts),
        path=(),
        warning="; ".join(f"{name}: {e.warning}" for name, e in layers if e.warning),
    )


def _sum_known(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def spearman(
    first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]
) -> tuple[float, float] | tuple[None, None]:
    """Rank correlation of two vectors of the same length, and its two-sided p-value; None where either is constant."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None, None
    found = spearmanr(first, second)
    return float(found.statistic), float(found.pvalue)
