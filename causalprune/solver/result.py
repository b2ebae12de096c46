"""A fit and the evidence that it solves its problem."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.columns import Float32, Float64
from causalprune.errors import NumericalError


@dataclass(frozen=True)
class PathPoint:
    """The solution at one α.

    Attributes:
        alpha: α.
        num_nonzero: Nonzero γ.
        objective: Primal objective.
        relative_gap: Duality gap over all columns as a share of ‖y‖²/(2T).
        r2: In sample.
        r2_held_out: On the last steps, of the fit to the others at this α; None if none were held out.
        cv_error: Mean squared error on the folds left out, as a share of the mean of y²; None without cross-validation.
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
    """What a fit can show for itself; the objective's scaling is that of :class:`LassoProblem`.

    Attributes:
        solver: Name of the solver.
        solver_version: Changes whenever the solver may give other numbers.
        num_rows: T.
        num_columns: P.
        alpha: α, in units of the columns as normalised.
        alpha_max: The smallest α with γ = 0.
        l1_ratio: ρ.
        objective: Primal objective.
        duality_gap: Objective minus dual objective, over all columns, in float64: an upper bound on the suboptimality.
        relative_gap: The gap as a share of ‖y‖²/(2T).
        r2: 1 − ‖y − Xγ‖²/‖y − ȳ‖² in sample; negative when the mean of y explains more.
        r2_held_out: The same on the last steps, of a fit at this α to the steps before them, ȳ being the mean of those
            before; None if none were held out.
        num_nonzero: Nonzero γ.
        num_equicorrelated: Columns with |x̃_kᵀr| = Tαρ: the active ones, and those that could take their place.
        unique: Whether γ is the only solution; None if it wasn't examined.
        certified: Whether the gap is within the tolerance asked for.
        passes: Columns read as a multiple of all columns, of everything that shared the passes.
        bytes_read: Stored bytes read.
        dual_correlation_error: How far a dual correlation may be off.
        spearman: Rank correlation of |γ| with |Xᵀy|; None when either is constant, and for the exact solver.
        path: The solution at each α, when there were several.
        warning: What the user should know; empty if nothing.
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
        """A JSON-ready dictionary; numbers that aren't finite become None."""
        return {k: _jsonable(v) for k, v in asdict(self).items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    return value


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fit.

    Attributes:
        gamma: (P,) γ in units of loss per unit of X.
        dual_correlation: (P,) |x̃_kᵀr − α(1−ρ)Tγ̃_k|/(T·α·ρ): 1 for active columns, at most 1 at the optimum;
            0 throughout when α is 0 because no column correlates with y.
        evidence: Of the whole fit; with several layers the sums, the worst gap, and the mean R².
        layers: Evidence of each layer that was fitted by itself.
        extras: Further arrays by name: ``path_*`` (the coefficients at each α, rows of a sparse matrix),
            ``selection_probability`` (P,), ``equicorrelation`` (positions of the columns at the bound).
        seconds: Where the time went, by ``read``, ``decode`` and ``product`` (summed over threads) and ``subproblem``;
            beside the evidence, which is the same whenever the same fit is made.
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
        result: What it has, not certified.
        tol: The relative gap that was asked for.
        passes: The passes it may take.
    """

    def __init__(self, result: FitResult, tol: float, passes: float) -> None:
        self.result = result
        e = result.evidence
        super().__init__(
            "fit",
            expected=f"a relative duality gap of {tol:g}",
            found=f"{e.relative_gap:.3g} after {e.passes:.3g} of at most {passes:g} passes",
            remedy="raise --max-passes, --memory, --tol or --alpha-ratio",
        )


def sparse_path(
    paths: list[list[tuple[npt.NDArray[np.int64], Float64]]], num_alphas: int
) -> dict[str, npt.NDArray[Any]]:
    """The coefficients of a path as a sparse matrix by rows, one a α.

    Args:
        paths: Of each layer, by α, the positions and values of the nonzero γ; empty where nothing could be fitted.
        num_alphas: α of the path.

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
