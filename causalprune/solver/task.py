"""One regression among those that share the passes over a region: its row weights, its penalties, its solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from causalprune.solver.active_set import ActiveSet, PoolSolution
from causalprune.solver.certificate import Penalty, duality_gap
from causalprune.solver.dual_newton import solve_dual
from causalprune.solver.pool import ColumnPool, Positions
from causalprune.solver.source import Float64

_SEARCH_STEPS = 40


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

    def solve(self, pool: ColumnPool, alpha_max: float, scaling: Scaling, goal: float, *, refine: bool) -> None:
        """Solve over the pool; α that are certified stay as they are.

        Args:
            pool: The columns.
            alpha_max: The smallest α with γ = 0.
            scaling: From α to λ.
            goal: Duality gap over the pool to reach, relative to that of g = 0.
            refine: Start each α from its own last solution, which is nearly right, rather than from the last α's.
        """
        if self.null == 0 or alpha_max == 0:
            self.solutions = []
            return
        solver = _Minimiser(self, pool, scaling, goal * self.null)
        if self.num_nonzero is not None:
            self.solutions = [self._search(solver, alpha_max, self.num_nonzero)]
            return
        assert self.alphas is not None
        earlier, found = self.solutions, []
        for place, alpha in enumerate(self.alphas(alpha_max)):
            last = earlier[place] if place < len(earlier) else None
            if last is not None and self.done(last) and last.alpha == alpha:
                found.append(last)
                continue
            if last is not None and (refine or place == 0):
                solver.start(last)
            found.append(solver.minimise(alpha))
        self.solutions = found

    def _search(self, solver: _Minimiser, alpha_max: float, wanted: int) -> Solution:
        """The largest α found with ``wanted`` nonzero coefficients, or the nearest number above that there is.

        The number isn't monotone in α, but it is 0 at alpha_max and a change is by few: bisection on log α ends at one.
        """
        if self.solutions:
            solver.start(self.solutions[0])
        low, high = alpha_max * self.alpha_min_ratio, alpha_max
        best = solver.minimise(low)
        if len(best.ids) <= wanted:
            return best
        for _ in range(_SEARCH_STEPS):
            middle = float(np.sqrt(low * high))
            found = solver.minimise(middle)
            if len(found.ids) == wanted:
                return found
            if len(found.ids) > wanted:
                low, best = middle, found
            else:
                high = middle
        return best


class _Minimiser:
    """Solves one task over one pool, by the method that suits the size of the support."""

    def __init__(self, task: Task, pool: ColumnPool, scaling: Scaling, goal: float) -> None:
        self._task, self._pool, self._scaling, self._goal = task, pool, scaling, goal
        self._active = ActiveSet(pool, task.weighted_target, task.factor, task.sign)
        self._residual = task.weighted_target

    def start(self, solution: Solution) -> None:
        self._active.load(solution.ids, solution.coefficients)
        self._residual = solution.residual

    def minimise(self, alpha: float) -> Solution:
        task = self._task
        T = len(task.target)
        penalty = self._scaling.penalty(alpha, task.l1_ratio)
        # From there on the dual with its T unknowns is the smaller problem; it needs a ridge.
        limit = T + 64 if penalty.l2 > 0 else self._pool.size
        found: PoolSolution | None = None
        if self._active.support_size <= limit:
            found = self._active.solve(penalty, self._goal, limit)
        if found is None:
            found = solve_dual(
                self._pool, task.weighted_target, task.factor, task.sign, penalty, self._goal, self._residual
            )
            if len(found.ids) <= limit:
                self._active.load(found.ids, found.coefficients)
        self._residual = found.residual
        g = found.coefficients
        l1_norm, squares = float(np.abs(g).sum()), float(g @ g)
        value = duality_gap(task.weighted_target, found.residual, l1_norm, squares, penalty, found.peak)
        return Solution(
            alpha, penalty, found.ids, g, found.residual, l1_norm, squares, found.peak, found.gap, value.objective
        )
