"""Solve a regression for every α of its path over the working set, or over all columns on a device.

Each α is solved on a small core of the columns; then the KKT conditions of all of them are checked for all α at once.
Correlating them with twenty residuals is one product of matrices and costs little more than with one. The violators of
the whole path join the core, which is solved again where there were any. On a device a check costs less than solving
again, so there each α is checked before the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from causalprune.solver.active_set import ActiveSet
from causalprune.solver.certificate import Penalty, duality_gap, signed
from causalprune.solver.dual_newton import solve_dual
from causalprune.solver.problem import Scaling
from causalprune.solver.source import Float64
from causalprune.solver.working_set import KKT_MARGIN, Positions, WorkingSet


@dataclass(frozen=True, eq=False)
class Solution:
    """A minimizer over some columns, and how far it is certified over all.

    Attributes:
        alpha: α of the problem as stated.
        penalty: λ₁ and λ₂ of the scaled problem.
        ids: (n,) positions of the nonzero coefficients in X.
        coefficients: (n,) g of the scaled columns.
        residual: (T,) residual of the weighted rows, in units of ‖y‖.
        peak: Largest correlation |x̃_jᵀr − Tλ₂g_j| when it was solved: over the core, and once it is checked over all
            :class:`PathColumns`.
        objective: P(g), in units of ‖y‖².
        checked: Whether the KKT conditions of all :class:`PathColumns` were checked and hold.
        gap: Duality gap over all columns, in units of ‖y‖²; infinite until it is known.
    """

    alpha: float
    penalty: Penalty
    ids: Positions
    coefficients: Float64
    residual: Float64
    peak: float
    objective: float
    checked: bool = False
    gap: float = np.inf

    @property
    def shift(self) -> tuple[Positions, Float64]:
        """The active columns, and Tλ₂g_j as a share of the bound Tλ₁; no columns without λ₂."""
        if self.penalty.l2 == 0:
            return self.ids[:0], self.coefficients[:0]
        return self.ids, self.coefficients * (self.penalty.l2 / self.penalty.l1)


@dataclass(eq=False)
class Task:
    """One of the regressions that share the passes over a region, and its solutions.

    Attributes:
        target: (T,) ŷ, without row weights.
        l1_ratio: ρ.
        sign: 1: γ ≥ 0; −1: γ ≤ 0; 0: free.
        tol: Duality gap to certify, relative to that of g = 0.
        alphas: Given alpha_max, the α to solve for, descending; None when searching for ``num_nonzero``.
        num_nonzero: Find an α with this many nonzero coefficients.
        alpha_min_ratio: The smallest α of that search, as a share of alpha_max.
        factor: (T,) √(w_t·T/Σw) of row weights w; None where all are 1.
        solutions: The latest solutions, in the order of ``alphas``.
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
        """(T,) factor·residual, with which the unweighted columns of X are correlated."""
        return solution.residual if self.factor is None else solution.residual * self.factor


_FIRST_COLUMNS = 1024
"""Columns in the core at first: those nearest to becoming active."""

VIOLATORS = 40
"""Violators of each α that join the core in each round, at least."""

_HOST_VIOLATORS = 160
"""The same where all α are solved anew in each round, which costs more than a larger core."""

_FEW = 20
"""With at most this many violators on the whole path, each α starts from its own last solution."""

MAX_ROUNDS = 200
"""Rounds after which a solution over the core is left as it is."""

_SEARCH_STEPS = 40


class PathColumns(ABC):
    """The columns that one path is solved over, and its core, the few of them that it works with.

    Args:
        num_rows: T.
        size: How many columns there are.

    Attributes:
        core: The core. Columns join it and stay.
        cheap_checks: Whether a check of all columns costs less than a step of the solver.
    """

    cheap_checks = False

    def __init__(self, num_rows: int, size: int) -> None:
        self.size = size
        self.core = WorkingSet(num_rows, min(size, 2 * _FIRST_COLUMNS))

    @property
    @abstractmethod
    def beyond_rows(self) -> WorkingSet:
        """Where to minimize when more columns than rows are active."""

    @abstractmethod
    def places(self, ids: Positions) -> Positions:
        """Places of columns by their position in X; −1 for those that aren't among them."""

    @abstractmethod
    def nearest(self, count: int) -> Positions:
        """Places of the columns that were nearest to becoming active, at most ``count``."""

    @abstractmethod
    def join(self, places: Positions) -> None:
        """Let columns join the core, unless they are in it."""

    @abstractmethod
    def check(self, task: Task, solutions: Sequence[Solution]) -> list[tuple[float, Positions]]:
        """Check the KKT conditions of all columns at solutions that minimize over the core.

        Returns:
            For each solution its peak, see :class:`Solution`, and the places of the worst violators outside the core.
        """


class HostColumns(PathColumns):
    """The columns of a working set.

    Args:
        working_set: The columns.
        score: (size,) raised to how near each column comes to becoming active at any α.
    """

    def __init__(self, working_set: WorkingSet, score: Float64) -> None:
        super().__init__(working_set.num_rows, working_set.size)
        self._working_set, self._score = working_set, score
        self._held = np.zeros(working_set.size, bool)

    @property
    def beyond_rows(self) -> WorkingSet:
        """The working set: every column takes part from the start."""
        return self._working_set

    def places(self, ids: Positions) -> Positions:
        """See :class:`PathColumns`."""
        return self._working_set.places(ids)

    def nearest(self, count: int) -> Positions:
        """See :class:`PathColumns`."""
        count = min(count, self.size)
        return np.argpartition(-self._working_set.score, count - 1)[:count]

    def join(self, places: Positions) -> None:
        """See :class:`PathColumns`."""
        places = places[~self._held[places]]
        self._held[places] = True
        self._working_set.copy_to(self.core, places)

    def check(self, task: Task, solutions: Sequence[Solution]) -> list[tuple[float, Positions]]:
        """See :class:`PathColumns`. The core's part of the peak is that of the solution, which minimizes over it."""
        if not solutions:
            return []
        bounds = np.array([len(task.target) * solution.penalty.l1 for solution in solutions])
        vectors = np.stack([task.vector(solution) for solution in solutions], axis=1) / bounds
        near, uppers = self._near(vectors, task.sign)
        found = []
        for k, (solution, bound) in enumerate(zip(solutions, bounds, strict=True)):
            peak, violators = self._violators(near, uppers[k], vectors[:, k], task.sign, self._shift(solution))
            found.append((max(solution.peak, bound * peak), violators))
        return found

    def _near(self, vectors: Float64, sign: int) -> tuple[Positions, Float64]:
        """The columns outside the core that may be at the bound of any of (T, K) vectors; raises the score.

        Returns:
            (n,) places and (K, n) upper bounds of their shares.
        """
        norms = np.linalg.norm(vectors, axis=0)
        places, uppers = [np.empty(0, np.int64)], [np.empty((len(norms), 0))]
        for first, shares, errors in self._working_set.shares(vectors, sign):
            part = slice(first, first + shares.shape[1])
            largest = shares.max(axis=0)
            np.maximum(self._score[part], largest, out=self._score[part])
            near = np.flatnonzero((largest + errors * norms.max() > 1 - KKT_MARGIN) & ~self._held[part])
            places.append(near + first)
            uppers.append(shares[:, near] + errors[near] * norms[:, None])
        return np.concatenate(places), np.concatenate(uppers, axis=1)

    def _shift(self, solution: Solution) -> Float64 | None:
        """(size,) what to subtract from the columns' shares of a solution's residual; None for nothing."""
        ids, values = solution.shift
        if not len(ids):
            return None
        places, shift = self.places(ids), np.zeros(self.size)
        shift[places[places >= 0]] = values[places >= 0]
        return shift

    def _violators(
        self, near: Positions, upper: Float64, vector: Float64, sign: int, shift: Float64 | None
    ) -> tuple[float, Positions]:
        """The largest share of a vector among columns near the bound, or a bound of it, and the worst violators.

        Those with the largest upper bounds are computed in float64; more of them only while none violates.
        """
        doubtful = np.flatnonzero(upper > 1 - KKT_MARGIN)
        doubtful = doubtful[np.argsort(-upper[doubtful], kind="stable")]
        peak = 0.0
        for first in range(0, len(doubtful), 2 * _HOST_VIOLATORS):
            some = near[doubtful[first : first + 2 * _HOST_VIOLATORS]]
            correlations = self._working_set.exact_correlations(some, vector[:, None])[:, 0]
            shares = signed(correlations if shift is None else correlations - shift[some], sign)
            peak = max(peak, float(shares.max()))
            if (shares > 1 + KKT_MARGIN).any():
                rest = doubtful[first + 2 * _HOST_VIOLATORS :]
                worst = np.argsort(-shares, kind="stable")[:_HOST_VIOLATORS]
                return max(peak, float(upper[rest].max(initial=0.0))), some[worst[shares[worst] > 1 + KKT_MARGIN]]
        return peak, near[:0]


class PathSolver:
    """Minimizes over columns for every α of a task; certified solutions stay as they are.

    Args:
        task: The regression.
        columns: The columns, of which none is in the core yet.
        scaling: From α to λ.
        goal: Duality gap over the columns to reach, relative to the objective at g = 0.
    """

    def __init__(self, task: Task, columns: PathColumns, scaling: Scaling, goal: float) -> None:
        self._task, self._columns, self._scaling = task, columns, scaling
        self._goal = goal * task.null
        self._active = ActiveSet(columns.core, task.weighted_target, task.factor, task.sign)
        self._residual = task.weighted_target

    def run(self, alpha_max: float, *, refine: bool, rounds: int = MAX_ROUNDS) -> list[Solution]:
        """Solve for every α.

        Args:
            alpha_max: The smallest α with γ = 0.
            refine: Start each α from its own last solution, which is nearly right, rather than from the previous α's.
                One that still holds stays.
            rounds: How often to solve at most.
        """
        task = self._task
        if task.null == 0:
            return []
        found, violators = task.solutions[:1], np.empty(0, np.int64)
        if task.alphas is not None:
            found = [self._reuse(place, alpha) for place, alpha in enumerate(task.alphas(alpha_max))]
            # The core is still empty, so that these checks are of all columns.
            if refine:
                violators = self._find_violators(found, self._minimized(found))
            if all(solution.checked or task.done(solution) for solution in found):
                return found
        self._fill_core(violators)
        for left in reversed(range(rounds)):
            if task.num_nonzero is not None:
                found = [self._search(alpha_max, task.num_nonzero, found)]
            else:
                self._walk(found, refine=refine)
            violators = self._find_violators(found, range(len(found)))
            if not len(violators) or not left:
                break
            self._columns.join(violators)
            refine = len(violators) <= _FEW
        return found

    def _reuse(self, place: int, alpha: float) -> Solution:
        """The last solution at this place of the path, or g = 0, as a start for ``alpha``."""
        task = self._task
        if place >= len(task.solutions):
            no_columns, no_coefficients = np.empty(0, np.int64), np.empty(0)
            return Solution(alpha, Penalty(0.0), no_columns, no_coefficients, task.weighted_target, 0.0, task.null)
        last = task.solutions[place]
        if task.done(last) and last.alpha == alpha:
            return last
        return replace(last, alpha=alpha, checked=False, gap=np.inf)

    def _fill_core(self, violators: Positions) -> None:
        """Begin with the columns nearest to becoming active, those of the last solutions, and their violators."""
        nearest = self._columns.nearest(_FIRST_COLUMNS)
        used = self._columns.places(np.concatenate([s.ids for s in self._task.solutions] or [violators[:0]]))
        self._columns.join(np.union1d(np.union1d(nearest, used[used >= 0]), violators))

    def _minimized(self, found: Sequence[Solution]) -> list[int]:
        """Places of the solutions that minimize over the columns that there were; others may have joined since."""
        lasts = self._task.solutions
        return [
            k
            for k, (now, last) in enumerate(zip(found, lasts, strict=False))
            if last.checked and last.alpha == now.alpha
        ]

    def _walk(self, found: list[Solution], *, refine: bool) -> None:
        """Minimize for each α that needs it, in descending order.

        Starting from the previous α is cheap, because little changes from one α to the next. Starting from an α's own
        last solution pays only where that is nearly right: exchanging many columns costs more than adding them.
        """
        for place, solution in enumerate(found):
            if solution.checked or self._task.done(solution):
                # It is the best start for the next α.
                if not refine:
                    self._start(solution)
                continue
            if refine or place == 0:
                self._start(solution)
            found[place] = self._minimize(solution.alpha)
            if not self._columns.cheap_checks:
                continue
            # The columns that one α lacks are those that the next would lack as well.
            while len(violators := self._find_violators(found, [place])):
                self._columns.join(violators)
                found[place] = self._minimize(solution.alpha)

    def _find_violators(self, found: list[Solution], places: Sequence[int]) -> Positions:
        """Check all columns at each new solution among ``places``; return the worst violators outside the core.

        Solutions without any are marked as checked.
        """
        task = self._task
        places = [place for place in places if not found[place].checked and not task.done(found[place])]
        checks = self._columns.check(task, [found[place] for place in places])
        joining = [np.empty(0, np.int64)]
        for place, (peak, violators) in zip(places, checks, strict=True):
            solution = found[place]
            gap = duality_gap(
                task.weighted_target, solution.residual, solution.coefficients, solution.penalty, peak
            ).gap
            if gap <= self._goal:
                violators = violators[:0]
            found[place] = replace(solution, peak=peak, checked=not len(violators))
            joining.append(violators)
        return np.unique(np.concatenate(joining))

    def _search(self, alpha_max: float, wanted: int, earlier: list[Solution]) -> Solution:
        """Bisect log α for ``wanted`` nonzero coefficients; where that fails, return the nearest larger number found.

        The number isn't monotone in α, but it is 0 at alpha_max and changes by few at a time.
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
        """Minimize over the core; over ``columns.beyond_rows`` where the support outgrows the rows."""
        task, columns = self._task, self._columns
        T = len(task.target)
        penalty = self._scaling.penalty(alpha, task.l1_ratio)
        # Above this size the dual with its T unknowns is the smaller problem; it needs λ₂ > 0.
        limit = T + 64 if penalty.l2 > 0 else columns.size
        found = self._active.solve(penalty, self._goal, limit) if self._active.size <= limit else None
        if found is None:
            found = solve_dual(
                columns.beyond_rows, task.weighted_target, task.factor, task.sign, penalty, self._goal, self._residual
            )
            if len(found.ids) <= limit:
                self._active.load(found.ids, found.coefficients)
        self._residual = found.residual
        return Solution(alpha, penalty, found.ids, found.coefficients, found.residual, found.peak, found.objective)
