"""A range of columns that is fitted by itself: its pool, its tasks, and the bounds of the columns outside the pool.

Of several processes each knows its own blocks; the pool of the first one holds those of all.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from causalprune.errors import DataError
from causalprune.solver.bounds import Piece, Reference, upper_limits
from causalprune.solver.certificate import allowed_peak, duality_gap
from causalprune.solver.pool import SLAB, ColumnPool, Positions
from causalprune.solver.pool_path import solve_path
from causalprune.solver.products import correlation_error, norm_error
from causalprune.solver.source import Float32, Float64
from causalprune.solver.task import Scaling, Solution, Task
from causalprune.solver.team import Team

NORM_FLOOR = 1e-9
"""Columns with less than this share of the largest norm keep that floor's scale: a unit norm would promote noise."""

_LOOSE = 1e-4
"""Relative gap of the solutions that only choose candidates."""

_KEEP_SCORE = 0.5
"""From this share of the bound on a column may become active, as the residual changes."""


Array = TypeVar("Array", Float32, Float64)


class Region:
    """Columns ``start`` to ``stop`` of X.

    Args:
        start: First column.
        stop: Column behind the last.
        block_width: Columns of a block, blocks being counted from column 0 of X.
        lead: (T,) what ŷ = y/‖y‖ becomes when the rows' weights are counted twice, as xᵀ(w∘ŷ) does.
        target_norm: ‖y‖.
        normalize: ``none`` or ``column``.
        l1_ratio: ρ.
        sign: 1: γ ≥ 0; −1: γ ≤ 0; 0: free.
        capacity: Columns of the pool.
        team: The processes that divide the blocks.

    Attributes:
        tasks: The regressions; the first is the fit itself, the others only share its passes.
        pieces: The parts of this process's blocks, by block number.
        reference: What blocks are to be correlated with next.
        violators: Columns seen outside the pool, since the last solution, that contradict it.
        changed: Whether the pool holds columns that the last solution doesn't know of.
        ranking_place: Place of the solution of the first task that ranks the columns, or None.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        *,
        block_width: int,
        lead: Float64,
        target_norm: float,
        normalize: str,
        l1_ratio: float,
        sign: int,
        capacity: int,
        team: Team,
    ) -> None:
        self.start, self.stop = start, stop
        self.tasks: list[Task] = []
        self.pieces = {
            number: Piece(max(number * block_width, start) - start, min((number + 1) * block_width, stop) - start)
            for number in range(start // block_width, -(-stop // block_width))
            if team.owner(np.array(number)) == team.rank
        }
        self.violators = 0
        self.changed = False
        self.ranking_place: int | None = None
        self._block_width = block_width
        self._lead, self._target_norm = lead, target_norm
        self._normalize, self._l1_ratio, self._sign = normalize, l1_ratio, sign
        T, n = len(lead), stop - start
        self._team = team
        self._num_own = sum(piece.stop - piece.start for piece in self.pieces.values())
        self._quota = self._num_own
        capacity = min(capacity, n)
        if capacity < n:
            of_others = max(1, capacity // team.count)
            self._quota = max(1, capacity - (team.count - 1) * of_others) if team.is_first else of_others
            capacity = self._quota + (team.count - 1) * of_others
        self._pool = ColumnPool(T, capacity if team.is_first else self._quota)
        self._sent: Positions = np.empty(0, np.int64)
        self._pooled = np.zeros(n, bool)
        self._norm = np.zeros(n, np.float32)
        self._rank = np.zeros(n, np.float32)
        self._largest_norm = 0.0
        self._unit = 0.0
        self._best = 0.0
        self._threshold = 0.0
        self._rank_error = 0.0
        self._solved_exactly = False
        self._rows = T
        self._error, self._norm_error = correlation_error(T), norm_error(T)
        self.reference = self._make_reference(first_pass=True)

    # What blocks tell.

    def absorb(
        self, number: int, block: Float32, products: Float32, norms: Float64 | None, reference: Reference
    ) -> None:
        """Take in a piece.

        Args:
            number: Of the block.
            block: (T, n) the piece's columns.
            products: (K, n) x_jᵀz with the reference's vectors.
            norms: (n,) ‖x_j‖, the first time.
            reference: What the products are with.

        Raises:
            DataError: A column isn't finite.
        """
        piece = self.pieces[number]
        if norms is not None:
            self._measure(piece, norms)
        piece.reference, piece.peak = reference, np.zeros(len(reference.norms))
        if reference.ranking is not None:
            piece.ranked = reference.vectors[:, reference.ranking] * reference.units[reference.ranking]
        if not self._largest_norm:
            return
        ids = np.arange(piece.start, piece.stop)
        scale, scaled_norm = self._scales(ids)
        shares = self._signed(products)
        shares *= scale.astype(np.float32)
        if reference.ranking is not None:
            self._rank[ids] = shares[reference.ranking] * reference.units[reference.ranking]
        outside = ~self._pooled[ids]
        lead = int(reference.owner[0] < 0)
        score = np.zeros(len(ids))
        if len(shares) > lead:
            score += shares[lead:].max(axis=0)
            self.violators += int(np.count_nonzero(score[outside] > 1))
            score += self._error * float(reference.norms[lead:].max()) * scaled_norm
        if norms is not None:
            upper = shares[0] + self._error * float(reference.norms[0]) * scaled_norm
            self._meet(block, scale, upper)
            if self._best > 0:
                np.maximum(score, upper / self._best, out=score)
        score[~outside] = -np.inf
        taken = self._choose(score)
        outside[taken] = False
        shares *= outside
        slack = self._error * float((scaled_norm * outside).max(initial=0.0))
        piece.peak = np.maximum(shares.max(axis=1, initial=0.0) + slack * reference.norms, 0.0)
        if len(taken):
            self._pool.add(block[:, taken], ids[taken], scale[taken], scaled_norm[taken], score[taken])
            self._pooled[ids[taken]] = True
            self.changed = True

    def _measure(self, piece: Piece, norms: Float64) -> None:
        if not np.isfinite(norms).all():
            at = self.start + piece.start + int(np.flatnonzero(~np.isfinite(norms))[0])
            raise DataError(f"column {at} of X", expected="finite numbers", found="NaN or infinity")
        self._norm[piece.start : piece.stop] = norms
        largest = float(norms.max(initial=0.0))
        if self._unit == 0.0 and largest > 0:
            self._unit = 2.0 ** -math.floor(math.log2(largest))
        self._largest_norm = max(self._largest_norm, largest)

    def _scales(self, ids: Positions | slice) -> tuple[Float64, Float64]:
        """s_j and an upper bound of ‖x̃_j‖."""
        norm = self._norm[ids].astype(np.float64)
        if self._normalize == "none":
            scale = np.where(norm > 0, self._unit, 0.0)
        else:
            floored = np.maximum(norm, NORM_FLOOR * self._largest_norm)
            scale = np.divide(1.0, floored, where=norm > 0, out=np.zeros_like(norm))
        return scale, scale * norm * (1 + self._norm_error)

    def _signed(self, correlations: Array) -> Array:
        if self._sign == 0:
            return np.abs(correlations)
        return correlations if self._sign > 0 else np.negative(correlations)

    def _meet(self, block: Float32, scale: Float64, upper: Float64) -> None:
        """Look for a larger correlation with y: those that may be one are computed in float64."""
        while True:
            rivals = np.flatnonzero(upper > self._best)
            if not len(rivals):
                return
            rivals = rivals[np.argsort(-upper[rivals])[:16]]
            exact = self._signed((self._lead @ block[:, rivals].astype(np.float64)) * scale[rivals])
            self._best = max(self._best, float(exact.max()))
            upper = upper.copy()
            upper[rivals] = -np.inf

    # The pool.

    def _choose(self, score: Float64) -> Positions:
        """Which columns of a piece join the pool; what has to make room for them leaves it."""
        taken = np.flatnonzero(score > self._threshold)
        own = self._own_columns()
        if len(taken) <= self._quota - np.count_nonzero(own):
            return taken
        held = self._pool.score.copy()
        held[self._in_use()] = np.inf
        both = np.concatenate([held[own], score[taken]])
        stay = max(1, (3 * self._quota) // 4)
        # Most pieces have yet to come: leave room, and ask more of them.
        self._threshold = float(np.partition(both, len(both) - stay)[len(both) - stay])
        leaving = own & (held < self._threshold)
        room = self._quota - np.count_nonzero(own & ~leaving)
        self._evict(leaving)
        taken = taken[score[taken] >= self._threshold]
        return taken[np.argsort(-score[taken], kind="stable")[:room]]

    def _own_columns(self) -> npt.NDArray[np.bool_]:
        """(size,) which columns of the pool are in this process's blocks; only the first process has others."""
        if self._team.count == 1 or not self._team.is_first:
            return np.ones(self._pool.size, bool)
        return self._owners() == 0

    def _owners(self) -> npt.NDArray[np.int64]:
        """(size,) whose blocks the columns of the pool are in."""
        return self._team.owner((self._pool.ids + self.start) // self._block_width)

    def _in_use(self) -> npt.NDArray[np.bool_]:
        """(size,) the columns of the pool that a solution uses."""
        used = [s.ids for task in self.tasks for s in task.solutions]
        return np.isin(self._pool.ids, np.concatenate(used)) if used else np.zeros(self._pool.size, bool)

    def _evict(self, leaving: npt.NDArray[np.bool_]) -> None:
        """Drop columns from the pool; the bounds of their pieces take them in."""
        rows = np.flatnonzero(leaving)
        numbers = (self._pool.ids[rows] + self.start) // self._block_width
        by_reference: dict[int, list[int]] = {}
        for number in np.unique(numbers):
            by_reference.setdefault(id(self.pieces[int(number)].reference), []).append(int(number))
        for group in by_reference.values():
            reference = self.pieces[group[0]].reference
            assert reference is not None
            mine = np.isin(numbers, group)
            upper = self._signed(self._pool.exact_correlations(rows[mine], reference.vectors))
            for number in group:
                piece = self.pieces[number]
                assert piece.peak is not None
                np.maximum(piece.peak, upper[numbers[mine] == number].max(axis=0), out=piece.peak)
        self._pooled[self._pool.ids[rows]] = False
        self._pool.keep(~leaving)

    # Several processes.

    def agree(self) -> None:
        """Let every process know the largest norm and correlation, and whether any has found something new.

        A scale that is a power of two is chosen by each at first; what was computed with another one follows exactly.
        """
        unit, self._largest_norm = self._team.largest(self._unit, self._largest_norm)
        if self._unit not in (0.0, unit) and self._normalize == "none":
            self._best *= unit / self._unit
            for piece in self.pieces.values():
                if piece.peak is not None:
                    piece.peak *= unit / self._unit
            self._unit = unit
            self._pool.rescale(*self._scales(self._pool.ids))
        self._unit = unit
        self._best, violators, changed = self._team.largest(self._best, self.violators, self.changed)
        self.violators, self.changed = int(violators), bool(changed)

    def gather(self) -> None:
        """Make the first process's pool that of all: the others send the columns that it doesn't have."""
        if self._team.is_first:
            for sender in self._team.others():
                self._receive(sender)
            return
        pool = self._pool
        rows = np.flatnonzero(~np.isin(pool.ids, self._sent))
        self._sent = pool.ids.copy()
        for array in (pool.ids, pool.ids[rows], self._norm[pool.ids[rows]], pool.score[rows]):
            self._team.send(array)
        for start in range(0, len(rows), SLAB):
            self._team.send(pool.raw_columns(rows[start : start + SLAB]))

    def _receive(self, sender: int) -> None:
        held = self._team.receive(sender, np.int64)
        self._pool.keep((self._owners() != sender) | np.isin(self._pool.ids, held))
        ids, norms = self._team.receive(sender, np.int64), self._team.receive(sender, np.float32)
        score = self._team.receive(sender, np.float64)
        self._norm[ids] = norms
        scale, scaled_norm = self._scales(ids)
        for start in range(0, len(ids), SLAB):
            part = slice(start, start + SLAB)
            values = self._team.receive(sender, np.float32).reshape(-1, self._rows).T
            self._pool.add(values, ids[part], scale[part], scaled_norm[part], score[part])

    def _spread(self) -> None:
        """Give the first process's solutions to all, and how near the columns of its pool are to entering."""
        if self._team.count == 1:
            return
        pool = self._pool
        mine = ([task.solutions for task in self.tasks], pool.ids, pool.score) if self._team.is_first else None
        found = self._team.from_first(mine)
        if found is None or self._team.is_first:
            return
        solutions, ids, score = found
        for task, own in zip(self.tasks, solutions, strict=True):
            task.solutions = own
        places = pool.places(ids)
        pool.score[places[places >= 0]] = score[places >= 0]

    def collect(self) -> None:
        """Bring to the first process what the others know of their columns' dual correlations."""
        solution = self.ranking_solution
        errors = {} if solution is None else self._rank_errors(solution)
        (self._rank_error,) = self._team.largest(max(errors.values(), default=0.0))
        if not self._team.is_first:
            self._team.send(self._rank[self._columns_of(self._team.rank)])
            return
        for sender in self._team.others():
            self._rank[self._columns_of(sender)] = self._team.receive(sender, np.float32)

    def _columns_of(self, member: int) -> npt.NDArray[np.bool_]:
        """(n,) the columns in a process's blocks."""
        numbers = np.arange(self.start // self._block_width, -(-self.stop // self._block_width))
        theirs = np.repeat(self._team.owner(numbers) == member, self._block_width)
        first = self.start % self._block_width
        return theirs[first : first + self.stop - self.start]

    # Solving.

    @property
    def alpha_max(self) -> float:
        """The smallest α with γ = 0, of the columns seen so far."""
        return self.scaling.alpha(self._best / self._rows, self._l1_ratio) if self._best > 0 else 0.0

    @property
    def moved(self) -> bool:
        """Whether any column seen so far isn't zero."""
        return self._largest_norm > 0

    @property
    def scaling(self) -> Scaling:
        """From the problem as stated to the one that is solved."""
        return Scaling(self._unit if self._normalize == "none" else 1.0, self._target_norm)

    def finish_first_pass(self) -> None:
        """Settle the scales, now that the largest norm is known, and with them alpha_max."""
        ids = self._pool.ids
        if self._normalize == "column":
            self._pool.rescale(*self._scales(ids))
            for piece in self.pieces.values():
                norm = self._norm[piece.start : piece.stop]
                if ((norm > 0) & (norm < NORM_FLOOR * self._largest_norm)).any():
                    # Its floor may have been a lower one when it was ranked.
                    piece.ranked = None
            exact = self._pool.exact_correlations(np.arange(len(ids)), self._lead[:, None])[:, 0]
            (self._best,) = self._team.largest(float(self._signed(exact).max(initial=0.0)))

    def solve(self, *, exactly: bool, first_pass: bool = False) -> None:
        """Solve all tasks over the pool, and aim the next reading at what they leave open."""
        self.gather()
        pool = self._pool
        if pool.size and self._best > 0 and self._team.is_first:
            score = np.zeros(pool.size)
            for task in self.tasks:
                goal = 0.01 * task.tol if exactly else _LOOSE
                task.solutions = solve_path(
                    task, pool, self.alpha_max, self.scaling, goal, refine=self._solved_exactly, score=score
                )
            if first_pass:
                # The column of alpha_max must not be pushed out before alpha_max is settled.
                with_target, _ = pool.correlations(self._lead[:, None])
                np.maximum(score, self._signed(with_target[:, 0]) / self._best, out=score)
            if score.any():
                pool.score[:] = score
        self._spread()
        if pool.size and self._best > 0:
            own = np.count_nonzero(self._own_columns())
            crowded = self._quota < self._num_own and 2 * own > self._quota
            self._threshold = _KEEP_SCORE if crowded else 0.0
        self._solved_exactly = exactly
        self.violators, self.changed = 0, False
        self.aim(first_pass=first_pass)

    def aim(self, *, first_pass: bool = False) -> None:
        """Make the reference of the solutions that aren't certified."""
        self.reference = self._make_reference(first_pass=first_pass)

    def _make_reference(self, *, first_pass: bool) -> Reference:
        vectors, units, owner = [], [], []
        ranking = None
        if first_pass:
            vectors, units, owner = [self._lead], [1.0], [-1]
        for t, task in enumerate(self.tasks):
            for place, solution in enumerate(task.solutions):
                if t == 0 and place == self.ranking_place:
                    ranking = len(vectors)
                elif task.done(solution):
                    continue
                unit = self._rows * solution.penalty.l1
                vectors.append(task.vector(solution) / unit)
                units.append(unit)
                owner.append(t)
        stacked = np.stack(vectors, axis=1) if vectors else np.empty((self._rows, 0))
        return Reference(
            stacked,
            np.linalg.norm(stacked, axis=0),
            np.array(units),
            np.array(owner, np.int64),
            np.ascontiguousarray(stacked.T, np.float32),
            ranking,
        )

    # Proving.

    def certify(self) -> set[int]:
        """Prove what can be proven without reading.

        Returns:
            Numbers of this process's blocks that must be read to prove the rest.
        """
        needed: set[int] = set()
        open_pieces = self._open_pieces()
        for t, task in enumerate(self.tasks):
            for place, solution in enumerate(task.solutions):
                if task.done(solution):
                    continue
                bound = self._rows * solution.penalty.l1
                limits = upper_limits(self.pieces, open_pieces, t, task.vector(solution))
                (peak,) = self._team.largest(max(bound, solution.pool_peak, *limits.values(), 0.0))
                facts = (task.weighted_target, solution.residual, solution.l1_norm, solution.squares, solution.penalty)
                # The largest: processors differ in the last bit, and must not differ about what is proven.
                (gap,) = self._team.largest(duality_gap(*facts, peak).gap)
                task.solutions[place] = replace(solution, gap=gap)
                if gap > task.goal:
                    allowed = allowed_peak(*facts, task.goal)
                    needed |= {number for number, limit in limits.items() if limit > allowed}
        return needed

    def _open_pieces(self) -> dict[int, float]:
        """Of each piece with columns outside the pool, the largest ‖x̃_j‖ among these."""
        largest = {}
        for number, piece in self.pieces.items():
            ids = slice(piece.start, piece.stop)
            outside = ~self._pooled[ids]
            norm = float(self._scales(ids)[1][outside].max(initial=0.0))
            if norm > 0:
                largest[number] = norm
        return largest

    # Ranking.

    def unranked(self, tolerance: float) -> set[int]:
        """Numbers of the blocks whose dual correlations of the ranking solution are off by more than that."""
        solution = self.ranking_solution
        if solution is None:
            return set()
        return {number for number, error in self._rank_errors(solution).items() if error > tolerance}

    def _rank_errors(self, solution: Solution) -> dict[int, float]:
        """How far dual correlations may be off, by block; those of the pool are computed exactly."""
        vector, bound = self.tasks[0].vector(solution), self._rows * solution.penalty.l1
        errors = {}
        for number, norm in self._open_pieces().items():
            ranked = self.pieces[number].ranked
            errors[number] = np.inf if ranked is None else norm * float(np.linalg.norm(vector - ranked)) / bound
        return errors

    @property
    def ranking_solution(self) -> Solution | None:
        """The solution that ranks the columns."""
        solutions = self.tasks[0].solutions
        return None if self.ranking_place is None or not solutions else solutions[self.ranking_place]

    def dual_correlations(self) -> tuple[Float32, float]:
        """|x̃_jᵀz − Tλ₂g_j|/(Tλ₁) of the ranking solution, and how far they may be off; after :meth:`collect`.

        Zero throughout when no column correlates with y.
        """
        solution = self.ranking_solution
        if solution is None:
            return self._rank, 0.0
        vector, bound = self.tasks[0].vector(solution), self._rows * solution.penalty.l1
        ids = self._pool.ids
        exact = self._signed(self._pool.exact_correlations(np.arange(len(ids)), vector[:, None])[:, 0])
        self._rank[ids] = exact
        self._rank[solution.ids] -= self._rows * solution.penalty.l2 * np.abs(solution.coefficients)
        self._rank /= bound
        return self._rank, self._rank_error

    def at_bound(self, tolerance: float) -> Positions:
        """The equicorrelation set of the ranking solution: columns whose correlation is the bound to within a share.

        The set is the same for all minimisers, γ isn't where its columns depend on each other (Tibshirani, 2013).
        """
        solution = self.ranking_solution
        if solution is None:
            return np.empty(0, np.int64)
        penalty = solution.penalty
        vector = self.tasks[0].vector(solution)
        found = self._pool.exact_correlations(np.arange(self._pool.size), vector[:, None])[:, 0]
        places = self._pool.places(solution.ids)
        found[places] -= self._rows * penalty.l2 * solution.coefficients
        return np.sort(self._pool.ids[self._signed(found) >= self._rows * penalty.l1 * (1 - tolerance)])

    def is_unique(self, at_bound: Positions) -> bool | None:
        """Whether the columns at the bound are independent, which makes γ unique; None where there are too many."""
        solution = self.ranking_solution
        if solution is None or solution.penalty.l2 > 0 or len(at_bound) <= 1:
            return True
        if len(at_bound) > self._rows:
            return False
        columns = self._pool.columns(self._pool.places(at_bound))
        return int(np.linalg.matrix_rank(columns)) == len(at_bound)

    def gamma(self, solution: Solution) -> tuple[Positions, Float64]:
        """Positions in X and values of the nonzero γ of a solution."""
        scale, _ = self._scales(solution.ids)
        return solution.ids + self.start, solution.coefficients * scale * self._target_norm

    def predict(self, solution: Solution) -> Float64:
        """Xγ of all rows, (T,), in units of ‖y‖, whatever their weights in the fit."""
        return solution.coefficients @ self._pool.columns(self._pool.places(solution.ids))
