"""A fit and the evidence that it solves its problem."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from causalprune.solver.source import Float32, Float64


@dataclass(frozen=True)
class FitEvidence:
    """What a fit can show for itself; the objective's scaling is that of :class:`LassoProblem`.

    Attributes:
        solver: Name of the solver.
        num_rows: T.
        num_columns: P.
        alpha: α, in units of the columns as normalised.
        alpha_max: The smallest α with γ = 0.
        l1_ratio: ρ.
        objective: Primal objective.
        duality_gap: Objective minus dual objective, over all columns, in float64: an upper bound on the suboptimality.
        relative_gap: The gap as a share of ‖y‖²/(2T).
        r2: 1 − ‖y − Xγ‖²/‖y − ȳ‖² in sample; negative when the mean of y explains more.
        num_nonzero: Nonzero γ.
        num_iterations: Iterations of the solver.
        spearman: Rank correlation of |γ| with |Xᵀy|; None when either is constant.
        certified: Whether the gap is within the tolerance asked for.
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
    num_iterations: int
    spearman: float | None
    certified: bool
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; numbers that aren't finite become None."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fit.

    Attributes:
        gamma: (P,) γ in units of loss per unit of X.
        dual_correlation: (P,) |x̃_kᵀr − α(1−ρ)Tγ̃_k|/(T·α·ρ): 1 for active columns, at most 1 at the optimum;
            0 throughout when α is 0 because no column correlates with y.
        evidence: Of the whole fit; with several layers the sums, the worst gap, and the mean R².
        layers: Evidence of each layer that was fitted by itself.
    """

    gamma: Float64
    dual_correlation: Float32
    evidence: FitEvidence
    layers: tuple[tuple[str, FitEvidence], ...] = ()
