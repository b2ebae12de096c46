"""One regression among those that share the passes over a region, and its solutions for all its penalties.

They are solved on a small core of the working set; then the whole working set is compared with all of them.
Correlating it with twenty residuals is one product of matrices and costs little more than with one; so the core takes
in the violators of the whole path, and is solved again where there were any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from causalprune.solver.active_set import ActiveSet, RestrictedSolution
from causalprune.solver.certificate import Penalty, duality_gap, signed
from causalprune.solver.dual_newton import solve_dual
from causalprune.solver.problem import Scaling
from causalprune.solver.source import Float64
from causalprune.solver.working_set import Positions, WorkingSet


@dataclass(frozen=True, eq=False)
class Solution:
    """A minimizer and what is known of it.

    Attributes:
        alpha: α of the problem as stated.
        penalty: λ₁ and λ₂ of the scaled one.
        ids: (n,) positions of the nonzero coefficients in X.
        coefficients: (n,) g of the scaled columns.
        residual: (T,) of the weighted rows, in units of ‖y‖.
        l1_norm: ‖g‖₁.
        squares: ‖g‖².
        restricted_peak: Largest correlation over the working set when it was solved.
        restricted_gap: Duality gap over the working set.
        objective: In units of ‖y‖².
        seen: Whether the whole working set was compared with it.
        gap: Duality gap over all columns, in units of ‖y‖²; infinite before it is known.
    """

    alpha: float
    penalty: Penalty
    ids: Positions
    coefficients: Float64
    residual: Float64
    l1_norm: float
    squares: float
    restricted_peak: float
    restricted_gap: float
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


_FIRST_COLUMNS = 1024
"""Columns of the core at first, those nearest to entering."""

_VIOLATORS = 40
"""Violators of each penalty that join it in a round."""

_MARGIN = 1e-10
"""A violation smaller than this share of the bound is rounding."""

_FEW = 20
"""Violators of the whole path that are few enough for each α to start from its own last solution."""

_TOGETHER = 16
"""Penalties for which the working set is looked at together; their correlations with it take memory."""

_MAX_ROUNDS = 200
_SEARCH_STEPS = 40


def solve_path(
    task: Task,
    working_set: WorkingSet,
    alpha_max: float,
    scaling: Scaling,
    goal: float,
    *,
    refine: bool,
    score: Float64,
) -> list[Solution]:
    """Minimize over the working set for every α of a task; those that are certified stay as they are.

    Args:
        task: The regression.
        working_set: The columns.
        alpha_max: The smallest α with γ = 0.
        scaling: From α to λ.
        goal: Duality gap over the working set to reach, relative to that of g = 0.
        refine: Start each α from its own last solution, which is nearly right, rather than from the last α's.
        score: (size,) raised to how near each column comes to entering at any α.
    """
    if task.null == 0 or alpha_max == 0:
        return []
    return _PathSolver(task, working_set, scaling, goal * task.null, score).run(alpha_max, refine=refine)


def _reuse(task: Task, place: int, alpha: float) -> Solution:
    """The last solution at this place of the path, or none at all, as a start for ``alpha``."""
    last = task.solutions[place] if place < len(task.solutions) else None
    if last is not None and task.done(last) and last.alpha == alpha:
        return last
    if last is not None:
        return replace(last, alpha=alpha, seen=False, gap=np.inf)
    nothing = np.empty(0)
    return Solution(
        alpha, Penalty(0.0), np.empty(0, np.int64), nothing, task.weighted_target, 0.0, 0.0, 0.0, np.inf, task.null
    )


class _PathSolver:
    def __init__(self, task: Task, working_set: WorkingSet, scaling: Scaling, goal: float, score: Float64) -> None:
        self._score = score
        self._task, self._working_set, self._scaling, self._goal = task, working_set, scaling, goal
        self._core = WorkingSet(working_set.num_rows, min(working_set.size, 2 * _FIRST_COLUMNS))
        self._held = np.zeros(working_set.size, bool)
        count = min(_FIRST_COLUMNS, working_set.size)
        nearest = np.argpartition(-working_set.score, count - 1)[:count]
        used = working_set.places(np.concatenate([s.ids for s in task.solutions] or [np.empty(0, np.int64)]))
        self._take(np.union1d(nearest, used[used >= 0]))
        self._active = ActiveSet(self._core, task.weighted_target, task.factor, task.sign)
        self._residual = task.weighted_target

    def _take(self, places: Positions) -> None:
        places = places[~self._held[places]]
        self._held[places] = True
        self._working_set.copy_to(self._core, places)

    def run(self, alpha_max: float, *, refine: bool) -> list[Solution]:
        task = self._task
        found: list[Solution] = []
        if task.alphas is not None:
            found = [_reuse(task, place, alpha) for place, alpha in enumerate(task.alphas(alpha_max))]
        elif task.solutions:
            found = task.solutions[:1]
        for _ in range(_MAX_ROUNDS):
            if task.num_nonzero is not None:
                found = [self._search(alpha_max, task.num_nonzero, found)]
            else:
                self._walk(found, refine=refine)
            violators = self._find_violators(found)
            if not len(violators):
                break
            self._take(violators)
            refine = len(violators) <= _FEW
        return found

    def _walk(self, found: list[Solution], *, refine: bool) -> None:
        """Minimize for those α that need it, in descending order.

        Starting from the last α is cheap, as little changes from one to the next. Starting from an α's own last
        solution pays only where that is all but right: to exchange many columns costs more than to build them up.
        """
        for place, solution in enumerate(found):
            if solution.seen or self._task.done(solution):
                # What is settled is the best start for the next.
                if not refine:
                    self._start(solution)
                continue
            if refine or place == 0:
                self._start(solution)
            found[place] = self._minimize(solution.alpha)

    def _find_violators(self, found: list[Solution]) -> Positions:
        """Correlate the whole working set with the residuals that it hasn't seen; the violators outside the core.

        Solutions without any are marked as seen.
        """
        places = [place for place, solution in enumerate(found) if not solution.seen and not self._task.done(solution)]
        joining = [np.empty(0, np.int64)]
        for first in range(0, len(places), _TOGETHER):
            some = places[first : first + _TOGETHER]
            vectors = np.stack([self._task.vector(found[place]) for place in some], axis=1)
            slopes, errors = self._working_set.correlations(vectors)
            for column, place in enumerate(some):
                found[place], violators = self._compare(
                    found[place], vectors[:, column], slopes[:, column], errors[:, column]
                )
                joining.append(violators)
        return np.unique(np.concatenate(joining))

    def _compare(
        self, solution: Solution, vector: Float64, slope: Float64, error: Float64
    ) -> tuple[Solution, Positions]:
        """Complete a solution by its gap over the working set, and find the worst violators outside the core."""
        task, working_set = self._task, self._working_set
        T = len(task.target)
        bound, ridge = T * solution.penalty.l1, T * solution.penalty.l2
        doubtful = np.flatnonzero(np.abs(slope) + error > bound * (1 - _MARGIN))
        if len(doubtful):
            slope[doubtful] = working_set.exact_correlations(doubtful, vector[:, None])[:, 0]
        if ridge:
            slope[working_set.places(solution.ids)] -= ridge * solution.coefficients
        excess = signed(slope, task.sign)
        np.maximum(self._score, excess / bound, out=self._score)
        peak = float(excess.max(initial=0.0))
        gap = self._gap(solution, peak)
        violators = np.flatnonzero((excess > bound * (1 + _MARGIN)) & ~self._held)
        if gap <= self._goal:
            violators = violators[:0]
        solution = replace(solution, restricted_peak=peak, restricted_gap=gap, seen=not len(violators))
        return solution, violators[np.argsort(-excess[violators])[:_VIOLATORS]]

    def _gap(self, solution: Solution, peak: float) -> float:
        facts = (solution.residual, solution.l1_norm, solution.squares, solution.penalty)
        return duality_gap(self._task.weighted_target, *facts, peak).gap

    def _search(self, alpha_max: float, wanted: int, earlier: list[Solution]) -> Solution:
        """The largest α found with ``wanted`` nonzero coefficients, or the nearest number above that there is.

        The number isn't monotone in α, but it is 0 at alpha_max and changes by few: bisection on log α ends at one.
        """
        if earlier:
            self._start(earlier[0])
        low, high = alpha_max * self._task.alpha_min_ratio, alpha_max
        best = self._minimize(low)
        if len(best.ids) <= wanted:
            return best
        for _ in range(_SEARCH_STEPS):
            middle = float(np.sqrt(low * high))
            found = self._minimize(middle)
            if len(found.ids) == wanted:
                return found
            if len(found.ids) > wanted:
                low, best = middle, found
            else:
                high = middle
        return best

    def _start(self, solution: Solution) -> None:
        self._active.load(solution.ids, solution.coefficients)
        self._residual = solution.residual

    def _minimize(self, alpha: float) -> Solution:
        """Minimize over the core; over the whole working set where the support outgrows the rows."""
        task = self._task
        T = len(task.target)
        penalty = self._scaling.penalty(alpha, task.l1_ratio)
        # From there on the dual with its T unknowns is the smaller problem; it needs a ridge.
        limit = T + 64 if penalty.l2 > 0 else self._working_set.size
        found: RestrictedSolution | None = None
        if self._active.support_size <= limit:
            found = self._active.solve(penalty, self._goal, limit)
        if found is None:
            found = solve_dual(
                self._working_set, task.weighted_target, task.factor, task.sign, penalty, self._goal, self._residual
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
