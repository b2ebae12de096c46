"""Solve the Lasso or elastic net for one α over the working set: Newton steps on an active set, in float64.

Feature-sign search (Lee, Battle, Raina and Ng, 2006): on the active columns A with signs σ the minimizer solves
(AᵀA + Tλ₂·I)·g = Aᵀy − Tλ₁·σ, the Newton step, computed with a Cholesky factor. On the way there the objective is
minimized exactly along the line; a coefficient that ends at zero leaves the set. Columns that violate the KKT condition
|x̃_jᵀr| ≤ Tλ₁ join it. The objective falls with every step, so the search ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.linalg.lapack import dpotrs

from causalprune.solver.certificate import Penalty, duality_gap, signed
from causalprune.solver.source import Float64
from causalprune.solver.working_set import KKT_MARGIN, Positions, WorkingSet

_JITTER = 1e-12
"""Share added to the Gram matrix's diagonal, as duplicates make it singular; two refinements undo its effect."""

_MAX_STEPS = 1000

Entry = TypeVar("Entry", bound=np.generic)


@dataclass(frozen=True, eq=False)
class RestrictedSolution:
    """A minimizer over the columns of a working set.

    Attributes:
        ids: (n,) positions in X of the nonzero coefficients.
        coefficients: (n,) g of the scaled columns.
        residual: (T,) y − X̃g.
        peak: Largest correlation |x̃_jᵀr − Tλ₂g_j| over the working set, :func:`signed` where the sign is constrained.
        objective: P(g).
    """

    ids: Positions
    coefficients: Float64
    residual: Float64
    peak: float
    objective: float


class ActiveSet:
    """Minimizes over the columns of a working set, for one penalty after another.

    Args:
        working_set: The columns. It may grow while this object is used, but not lose any.
        target: (T,) y, already multiplied by ``factor``.
        factor: (T,) √w_t of weighted rows, which multiplies the columns too; None where all are 1.
        sign: 1: coefficients ≥ 0; −1: ≤ 0; 0: free.

    Attributes:
        size: Active columns.
    """

    def __init__(self, working_set: WorkingSet, target: Float64, factor: Float64 | None, sign: int) -> None:
        self._working_set, self._target, self._factor, self._sign = working_set, target, factor, sign
        self._rows = len(target)
        self.size = 0
        self._columns = np.empty((self._rows, 0), order="F")
        self._gram = np.empty((0, 0))
        self._at: Positions = np.empty(0, np.int64)
        self._g = self._signs = self._moments = np.empty(0)
        self._allocate(64)

    def _allocate(self, capacity: int) -> None:
        self._columns = _grown(self._columns, self._rows, capacity)
        self._gram = _grown(self._gram, capacity, capacity)
        self._cholesky = np.zeros((capacity, capacity))
        self._factored, self._factored_for = 0, -1.0
        self._at = _grown(self._at, capacity)
        self._g = _grown(self._g, capacity)
        self._signs = _grown(self._signs, capacity)
        self._moments = _grown(self._moments, capacity)
        self._capacity = capacity

    def load(self, ids: Positions, coefficients: Float64) -> None:
        """Start from these coefficients, less those of columns outside the working set, or in rows without weight."""
        self.size = self._factored = 0
        places = self._working_set.places(ids)
        found = places >= 0
        if self._factor is not None:
            found[found] = (self._working_set.raw_columns(places[found]) * self._factor).any(axis=1)
        self._join(places[found], np.sign(coefficients[found]))
        self._g[: self.size] = coefficients[found]

    def solve(self, penalty: Penalty, goal: float, limit: int) -> RestrictedSolution | None:
        """Minimize 1/(2T)·‖y − X̃g‖² + λ₁‖g‖₁ + λ₂/2·‖g‖² over the working set, starting where the last call ended.

        Args:
            penalty: λ₁ and λ₂.
            goal: Duality gap over the working set to reach.
            limit: Give up when more columns than this are active.

        Returns:
            The solution, or None if more than ``limit`` columns became active.
        """
        T = self._rows
        bound, ridge = T * penalty.l1, T * penalty.l2
        for _ in range(_MAX_STEPS):
            self._minimize(bound, ridge)
            if self.size > limit:
                return None
            g = self._g[: self.size]
            residual = self._target - self._columns[:, : self.size] @ g
            weighted = residual if self._factor is None else residual * self._factor
            slopes, errors = self._working_set.correlations(weighted[:, None])
            slope, error = slopes[:, 0], errors[:, 0]
            # The active columns, which are at the bound, are at hand in float64 already.
            active = self._at[: self.size]
            slope[active], error[active] = 0.0, 0.0
            self._working_set.refine(slope, error, weighted, bound)
            slope[active] = self._columns[:, : self.size].T @ residual
            shifted = slope.copy()
            shifted[self._at[: self.size]] -= ridge * g
            peak = float(signed(shifted, self._sign).max(initial=0.0))
            if duality_gap(self._target, residual, g, penalty, peak).gap <= goal or not self._admit(slope, bound):
                break
        used = np.flatnonzero(self._g[: self.size])
        g = self._g[used].copy()
        objective = duality_gap(self._target, residual, g, penalty, peak).objective
        return RestrictedSolution(self._working_set.ids[self._at[used]].copy(), g, residual, peak, objective)

    def _admit(self, slope: Float64, bound: float) -> bool:
        """Let the worst violators of the KKT conditions join; return whether there were any."""
        excess = signed(slope, self._sign)
        worst = np.flatnonzero(excess > bound * (1 + KKT_MARGIN))
        if len(worst):
            worst = worst[~np.isin(worst, self._at[: self.size])]
        if not len(worst):
            return False
        few = max(5, min(40, self.size // 3 + 5))
        if len(worst) > few:
            worst = worst[np.argpartition(-excess[worst], few - 1)[:few]]
        self._join(worst, np.sign(slope[worst]))
        return True

    def _join(self, places: Positions, signs: Float64) -> None:
        if not len(places):
            return
        k, n = self.size, len(places)
        if k + n > self._capacity:
            self._allocate(max(2 * self._capacity, k + n))
        columns = self._working_set.columns(places)
        if self._factor is not None:
            columns = columns * self._factor
        self._columns[:, k : k + n] = columns.T
        products = self._columns[:, : k + n].T @ self._columns[:, k : k + n]
        self._gram[: k + n, k : k + n] = products
        self._gram[k : k + n, : k + n] = products.T
        self._moments[k : k + n] = self._columns[:, k : k + n].T @ self._target
        self._at[k : k + n], self._signs[k : k + n], self._g[k : k + n] = places, signs, 0.0
        self.size = k + n

    def _leave(self, leaving: np.ndarray) -> None:
        """Drop columns; the Cholesky factor of the columns before the first of them stays valid."""
        stay = np.flatnonzero(~leaving)
        first, n = int(np.argmax(leaving)), len(stay)
        moved = stay[first:]
        self._columns[:, first:n] = self._columns[:, moved]
        self._gram[first:n, :first] = self._gram[moved, :first]
        self._gram[:first, first:n] = self._gram[first:n, :first].T
        self._gram[first:n, first:n] = self._gram[np.ix_(moved, moved)]
        for array in (self._at, self._g, self._signs, self._moments):
            array[first:n] = array[moved]
        self._factored = min(self._factored, first)
        self.size = n

    def _factorize(self, ridge: float) -> None:
        """Extend the Cholesky factor of the Gram matrix to all active columns."""
        if ridge != self._factored_for:
            self._factored, self._factored_for = 0, ridge
        jitter = _JITTER
        while True:
            known, k = self._factored, self.size
            if known == k:
                return
            factor = self._cholesky
            corner = self._gram[known:k, known:k].copy()
            corner[np.diag_indices(k - known)] += jitter * self._gram.diagonal()[known:k] + ridge
            if known:
                side = solve_triangular(
                    factor[:known, :known], self._gram[:known, known:k], lower=True, check_finite=False
                )
                corner -= side.T @ side
                factor[known:k, :known] = side.T
            try:
                factor[known:k, known:k] = cholesky(corner, lower=True, check_finite=False)
                self._factored = k
            except LinAlgError:
                self._factored = 0
                jitter *= 100

    def _newton(self, bound: float, ridge: float, refinements: int, start: Float64) -> Float64:
        """The minimizer on the active columns with their signs, improved from ``start``."""
        self._factorize(ridge)
        k = self.size
        factor, gram = self._cholesky[:k, :k], self._gram[:k, :k]
        wanted = self._moments[:k] - bound * self._signs[:k]
        found = start
        for _ in range(refinements):
            error = wanted - gram @ found - ridge * found
            correction, _ = dpotrs(factor, error, lower=1)
            found = found + correction
        return found

    def _minimize(self, bound: float, ridge: float) -> None:
        """Minimize over the active columns; a column whose coefficient becomes zero leaves."""
        for _ in range(_MAX_STEPS):
            k = self.size
            if k == 0:
                return
            g, signs = self._g[:k].copy(), self._signs[:k].copy()
            newton = self._newton(bound, ridge, 1, g)
            wrong = newton * signs <= 0
            if not wrong.any():
                newton = self._newton(bound, ridge, 2, newton)
                wrong = newton * signs <= 0
                if not wrong.any():
                    self._g[:k] = newton
                    return
            # Often every column whose sign would change has to leave: try that, and keep it if the objective falls.
            projected = np.where(wrong, 0.0, newton)
            if self._value(projected, bound, ridge) < self._value(g, bound, ridge):
                self._g[:k] = projected
                self._leave(wrong)
                continue
            newcomers = g == 0
            if (wrong & newcomers).any():
                self._leave(wrong & newcomers)
                continue
            moved = self._along(g, newton - g, signs, bound, ridge)
            self._g[:k] = moved
            self._signs[:k] = np.where(moved == 0, signs, np.sign(moved))
            if (moved == 0).any():
                self._leave(moved == 0)
            elif np.array_equal(moved, g):
                return

    def _value(self, g: Float64, bound: float, ridge: float) -> float:
        """T times the objective on the active columns, up to a constant."""
        k = len(g)
        curved = self._gram[:k, :k] @ g + ridge * g
        return float(0.5 * (g @ curved) - self._moments[:k] @ g + bound * np.abs(g).sum())

    def _along(self, g: Float64, direction: Float64, signs: Float64, bound: float, ridge: float) -> Float64:
        """Minimize on the line from g to g + direction; a coefficient may cross zero unless its sign is constrained."""
        k = len(g)
        curved = self._gram[:k, :k] @ direction + ridge * direction
        curvature = float(direction @ curved)
        slope = float(g @ curved - self._moments[:k] @ direction + bound * (signs @ direction))
        crossing = (g != 0) & (g * (g + direction) <= 0)
        times = np.where(crossing, -g / np.where(direction == 0, 1.0, direction), np.inf)
        hit = -1
        for i in np.argsort(times):
            time = float(times[i])
            if time > 1 or slope + curvature * time >= 0:
                break
            slope += 2 * bound * abs(float(direction[i]))
            if self._sign or slope + curvature * time >= 0:
                hit = int(i)
                break
        if hit >= 0:
            moved = g + time * direction
            moved[hit] = 0.0
            return moved
        return g + (min(1.0, -slope / curvature) if curvature > 0 else 1.0) * direction


def _grown(array: npt.NDArray[Entry], *shape: int) -> npt.NDArray[Entry]:
    """A larger array that starts with the entries of a smaller one."""
    larger = np.empty(shape, array.dtype, order="F")
    larger[tuple(map(slice, array.shape))] = array
    return larger
