"""One regression among those that share the passes over a region: its row weights, its penalties, its solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from causalprune.columns import Float64
from causalprune.solver.certificate import Penalty
from causalprune.solver.pool import Positions


@dataclass(frozen=True)
class Scaling:
    """How α and γ of the problem as stated become those of columns and targets of the order of 1, and back.

    x̃_j = s_j·x_j with s_j = ``unit`` or 1/‖x_j‖, ŷ = y/``target_norm``; then γ_j = target_norm·s_j·g_j.

    Attributes:
        unit: A power of two, so that nothing is rounded; 1 where columns are normalised.
        target_norm: ‖y‖.
    """

    unit: float
    target_norm: float

    def penalty(self, alpha: float, l1_ratio: float) -> Penalty:
        """λ₁ and λ₂ of the scaled problem that mean α and ρ in the one as stated."""
        return Penalty(alpha * l1_ratio * self.unit / self.target_norm, alpha * (1.0 - l1_ratio) * self.unit**2)

    def alpha(self, l1: float, l1_ratio: float) -> float:
        """α of λ₁."""
        return l1 * self.target_norm / (self.unit * l1_ratio)


@dataclass(frozen=True, eq=False)
class Solution:
    """A minimiser and what is known of it.

    Attributes:
        alpha: α of the problem as stated.
        penalty: λ₁ and λ₂ of the scaled one.
        ids: (n,) positions of the nonzero coefficients in X.
        coefficients: (n,) g of the scaled columns.
        residual: (T,) of the weighted rows, in units of ‖y‖.
        l1_norm: ‖g‖₁.
        squares: ‖g‖².
        pool_peak: Largest correlation over the pool when it was solved.
        pool_gap: Duality gap over the pool.
        objective: In units of ‖y‖².
        seen: Whether the whole pool was compared with it.
        gap: Duality gap over all columns, in units of ‖y‖²; infinite before it is known.
    """

    alpha: float
    penalty: Penalty
    ids: Positions
    coefficients: Float64
    residual: Float64
    l1_norm: float
    squares: float
    pool_peak: float
    pool_gap: float
    objective: float
    seen: bool = False
    gap: float = np.inf


@dataclass(eq=False)
class Task:
    """A regression of weighted rows.

    Attributes:
        target: (T,) ŷ, not weighted.
        l1_ratio: ρ.
        sign: 1: γ ≥ 0; −1: γ ≤ 0; 0: free.
        tol: Duality gap to certify, relative to that of g = 0.
        alphas: From alpha_max, the α to solve for, descending; None when ``num_nonzero`` is sought.
        num_nonzero: Find an α with so many nonzero coefficients.
        alpha_min_ratio: The least share of alpha_max to look at in that search.
        factor: (T,) √(w_t·T/Σw) of row weights w; None where all are 1.
        solutions: The latest, by place in ``alphas``.
    """

    target: Float64
    l1_ratio: float
    sign: int
    tol: float
    alphas: Callable[[float], list[float]] | None
    num_nonzero: int | None = None
    alpha_min_ratio: float = 1e-3
    factor: Float64 | None = None
    solutions: list[Solution] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weighted_target = self.target if self.factor is None else self.target * self.factor
        self.null = float(self.weighted_target @ self.weighted_target) / (2 * len(self.target))

    @property
    def goal(self) -> float:
        """The gap to certify, in units of ‖y‖²."""
        return self.tol * self.null

    def done(self, solution: Solution) -> bool:
        """Whether its gap is proven to be small enough."""
        return solution.gap <= self.goal

    @property
    def finished(self) -> bool:
        """Whether every solution is certified."""
        return bool(self.solutions) and all(self.done(s) for s in self.solutions)

    def vector(self, solution: Solution) -> Float64:
        """(T,) what X's unweighted columns are correlated with: factor·residual."""
        return solution.residual if self.factor is None else solution.residual * self.factor
