"""A range of columns fitted by itself: take in blocks, solve its tasks over the working set, certify them.

With several processes, each takes in its own blocks; the working set of the first one holds the columns of all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from causalprune.solver.certificate import allowed_peak, duality_gap, gap_rounding, signed
from causalprune.solver.kkt_scores import KktScores, Ranking
from causalprune.solver.path import MAX_ROUNDS, HostColumns, PathSolver, Solution, Task
from causalprune.solver.problem import Scaling, not_finite
from causalprune.solver.process_group import Division, Exchange
from causalprune.solver.products import VECTOR_NORMS, correlation_error, usual
from causalprune.solver.screening import BlockPart, Reference, Screening, upper_limits
from causalprune.solver.source import Float32, Float64
from causalprune.solver.working_set import ColumnScales, Positions

_LOOSE = 1e-4
"""Relative gap of the solutions on the way, which only serve to choose the working set."""

_LOOSE_ROUNDS = 2
"""Rounds for these; what violates them at the end is in the working set, and what matters is their residuals."""


class FittedColumns(ABC):
    """A range of columns of X with its tasks, whether they are read in blocks or lie on a device.

    Args:
        start: First column in X.
        stop: Column after the last.
        tasks: The regressions; the first is the fit itself, the others share its passes. More may be appended.
        target_norm: ‖y‖.
        normalize: ``none`` or ``column``.

    Attributes:
        start: First column in X.
        stop: Column after the last.
        tasks: The same list.
    """

    def __init__(self, start: int, stop: int, tasks: list[Task], *, target_norm: float, normalize: str) -> None:
        self.start, self.stop = start, stop
        self.tasks = tasks
        self._target_norm = target_norm
        main = tasks[0]
        self._l1_ratio, self._sign = main.l1_ratio, main.sign
        # w∘ŷ for row weights w, whose product with a column x is that of the weighted rows.
        self._lead = main.target if main.factor is None else main.target * main.factor**2
        self._rows = len(main.target)
        self._scales = ColumnScales(self._rows, stop - start, normalize)
        self._largest_correlation = 0.0

    @property
    @abstractmethod
    def ranking(self) -> Ranking:
        """KKT scores of all columns, at one of the first task's solutions."""

    @abstractmethod
    def collect_scores(self) -> None:
        """Complete the ranking when everything is solved."""

    @property
    def alpha_max(self) -> float:
        """The smallest α with γ = 0, for the columns read so far; 0 if none correlates with y."""
        if not self._largest_correlation > 0:
            return 0.0
        return self._scaling.alpha(self._largest_correlation / self._rows, self._l1_ratio)

    @property
    def moved(self) -> bool:
        """Whether any column read so far isn't zero."""
        return self._scales.largest_norm > 0

    @property
    def _scaling(self) -> Scaling:
        return Scaling(1.0 if self._scales.by_norm else self._scales.unit, self._target_norm)

    def _measure(self, start: int, norms: Float64) -> None:
        """Take in ‖x_j‖ of the columns from ``start`` on.

        Raises:
            DataError: A column isn't finite.
        """
        if not np.isfinite(norms).all():
            raise not_finite(self.start + start + int(np.flatnonzero(~np.isfinite(norms))[0]))
        self._scales.measure(start, norms)

    def _gap(self, task: Task, solution: Solution, peak: float) -> tuple[float, float]:
        """The duality gap of a solution whose largest correlation is at most ``peak``, and what rounding may add."""
        bound = self._rows * solution.penalty.l1
        found = duality_gap(task.weighted_target, solution.residual, solution.coefficients, solution.penalty, peak)
        norms, weight = self._scales.of(solution.ids)[1], 1.0 if task.factor is None else task.factor.max()
        sizes = weight * norms * np.abs(solution.coefficients)
        largest = weight * self._scales.largest_scaled
        return found.gap, gap_rounding(found, task.weighted_target, sizes, bound, largest)

    def gamma(self, solution: Solution) -> tuple[Positions, Float64]:
        """Positions in X and values of the nonzero γ of a solution."""
        scale, _ = self._scales.of(solution.ids)
        return solution.ids + self.start, solution.coefficients * scale * self._target_norm

    @abstractmethod
    def predict(self, solution: Solution) -> Float64:
        """(T,) Xγ in units of ‖y‖, not weighted."""


class Region(FittedColumns):
    """Columns of X that share their tasks, read in blocks.

    Args:
        division: The columns, and how they are divided among processes.
        tasks: The regressions; the first is the fit itself, the others share its passes. More may be appended.
        target_norm: ‖y‖.
        normalize: ``none`` or ``column``.
        capacity: Columns in the working set.

    Attributes:
        parts: The parts of this process's blocks, by block number.
        reference: The vectors to correlate the next blocks with.
        violators: Columns outside the working set that violate the KKT conditions, found since the last solution.
        changed: Whether columns have joined the working set since the last solution.
        exchange: Where processes exchange columns and solutions.
    """

    def __init__(
        self, division: Division, tasks: list[Task], *, target_norm: float, normalize: str, capacity: int
    ) -> None:
        super().__init__(division.start, division.stop, tasks, target_norm=target_norm, normalize=normalize)
        self.parts = {number: BlockPart(*span) for number, span in division.own_spans().items()}
        self.violators = 0
        self.changed = False
        self._group = division.group
        self._screening = Screening(
            division, self.parts, self._scales, num_rows=self._rows, capacity=capacity, sign=self._sign
        )
        self._working_set = self._screening.working_set
        self.exchange = Exchange(division, self._scales, self._working_set)
        self._ranking = KktScores(tasks[0], self.parts, self._screening)
        self._solved_exactly = False
        self._error = correlation_error(self._rows)
        self.choose_reference(first_pass=True)

    @property
    def ranking(self) -> KktScores:
        """KKT scores of all columns, at one of the first task's solutions."""
        return self._ranking

    def collect_scores(self) -> None:
        """Gather the scores at the first process."""
        self._ranking.collect(self.exchange)

    def add_block(
        self, number: int, block: Float32, products: Float32, norms: Float64 | None, reference: Reference
    ) -> None:
        """Take in the region's part of a block: choose columns for the working set, bound those of the others.

        Args:
            number: Number of the block.
            block: (T, n) the part's columns.
            products: (K, n) x_jᵀz for the reference's vectors z.
            norms: (n,) ‖x_j‖ in the first pass, None later.
            reference: The vectors that the products are with.

        Raises:
            DataError: A column isn't finite.
        """
        part = self.parts[number]
        if norms is not None:
            self._measure(part.start, norms)
        part.reference, part.peak = reference, np.zeros(len(reference.norms))
        if reference.ranking is not None:
            part.ranking_unit = float(reference.units[reference.ranking])
            part.ranked = reference.vectors[:, reference.ranking] * part.ranking_unit
        if not self.moved:
            return
        ids = np.arange(part.start, part.stop)
        scale, scaled_norm = self._scales.of(ids)
        extreme = (scale > 0) & ~usual(self._scales.norm[ids])
        shares = signed(products, self._sign)
        # A share that overflows becomes infinite: a column to keep, and a bound that rules nothing out.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            shares *= scale.astype(np.float32)
            if extreme.any():
                columns = block[:, extreme].astype(np.float64) * scale[extreme]
                shares[:, extreme] = signed(reference.vectors.T @ columns, self._sign)
        if reference.ranking is not None:
            self.ranking.note(part, shares[reference.ranking])
        outside = ~self._screening.held[ids]
        lead = int(reference.owner[0] < 0)
        score = np.zeros(len(ids))
        if len(shares) > lead:
            score += shares[lead:].max(axis=0)
            self.violators += int(np.count_nonzero(score[outside] > 1))
            score += self._error * float(reference.norms[lead:].max()) * scaled_norm
        if norms is not None:
            upper = shares[0] + self._error * float(reference.norms[0]) * scaled_norm
            self._raise_largest_correlation(block, scale, upper)
            if self._largest_correlation > 0:
                np.maximum(score, upper / self._largest_correlation, out=score)
        score[~outside] = -np.inf
        taken = self._screening.choose(score)
        outside[taken] = False
        shares[:, ~outside] = 0.0
        slack = self._error * float((scaled_norm * outside).max(initial=0.0))
        # part.peak may already cover columns that have just left the working set.
        np.maximum(shares.max(axis=1, initial=0.0) + slack * reference.norms, part.peak, out=part.peak)
        if len(taken):
            # Taken row by row: by an index, NumPy would gather column by column, which takes three times as long.
            joining = np.take(block, taken, axis=1)
            self._screening.add(joining, ids[taken], scale[taken], scaled_norm[taken], score[taken])
            self.changed = True

    def _raise_largest_correlation(self, block: Float32, scale: Float64, upper: Float64) -> None:
        """Look for a larger correlation with y; columns whose upper bound allows one are computed in float64."""
        while True:
            rivals = np.flatnonzero(upper > self._largest_correlation)
            if not len(rivals):
                return
            rivals = rivals[np.argsort(-upper[rivals])[:16]]
            exact = signed((self._lead @ block[:, rivals].astype(np.float64)) * scale[rivals], self._sign)
            self._largest_correlation = max(self._largest_correlation, float(exact.max()))
            upper = upper.copy()
            upper[rivals] = -np.inf

    def synchronize(self) -> None:
        """Agree with the other processes on the largest norm and correlation, and on whether anything is new.

        At first each process chooses its own power of two as the scale; what it computed with that is rescaled exactly.
        """
        scales = self._scales
        unit, scales.largest_norm = self._group.maximum(scales.unit, scales.largest_norm)
        stale = scales.unit not in (0.0, unit) and not scales.by_norm
        before, scales.unit = scales.unit, unit
        if stale:
            self._largest_correlation *= unit / before
            for part in self.parts.values():
                if part.peak is not None:
                    part.peak *= unit / before
            self._working_set.rescale(*scales.of(self._working_set.ids))
        self._largest_correlation, violators, changed = self._group.maximum(
            self._largest_correlation, self.violators, self.changed
        )
        self.violators, self.changed = int(violators), bool(changed)

    def solve(self, *, exactly: bool, first_pass: bool = False) -> None:
        """Solve all tasks over the working set, and correlate the next blocks with what isn't certified then."""
        self.exchange.gather()
        working_set = self._working_set
        if working_set.size and self._largest_correlation > 0 and self._group.is_first:
            score = np.zeros(working_set.size)
            for task in self.tasks:
                columns, goal = HostColumns(working_set, score), 0.01 * task.tol if exactly else _LOOSE
                solver = PathSolver(task, columns, self._scaling, goal)
                rounds = MAX_ROUNDS if exactly else _LOOSE_ROUNDS
                task.solutions = solver.run(self.alpha_max, refine=self._solved_exactly, rounds=rounds)
            if first_pass:
                # The column that determines alpha_max must not leave before alpha_max is final.
                with_target, _ = working_set.correlations(self._lead[:, None])
                np.maximum(score, signed(with_target[:, 0], self._sign) / self._largest_correlation, out=score)
            if score.any():
                working_set.score[:] = score
        self.exchange.broadcast(self.tasks)
        if working_set.size and self._largest_correlation > 0:
            used = [solution.ids for task in self.tasks for solution in task.solutions]
            self._screening.protect(np.concatenate(used) if used else np.empty(0, np.int64))
        self._solved_exactly = exactly
        self.violators, self.changed = 0, False
        self.choose_reference(first_pass=first_pass)

    def choose_reference(self, *, first_pass: bool = False) -> None:
        """Set the reference to the solutions that aren't certified, the ranking one, and in the first pass y."""
        vectors, units, owner = [], [], []
        ranking = None
        if first_pass:
            vectors, units, owner = [self._lead], [1.0], [-1]
        for t, task in enumerate(self.tasks):
            for place, solution in enumerate(task.solutions):
                if t == 0 and place == self.ranking.place:
                    ranking = len(vectors)
                elif task.done(solution):
                    continue
                vector = task.vector(solution)
                norm, unit = float(np.linalg.norm(vector)), self._rows * solution.penalty.l1
                if norm > 0:
                    # For an α that has nothing to do with alpha_max they are no shares, but no zeros or infinities.
                    unit = min(max(unit, norm / VECTOR_NORMS[1]), norm / VECTOR_NORMS[0])
                vectors.append(vector / unit)
                units.append(unit)
                owner.append(t)
        stacked = np.stack(vectors, axis=1) if vectors else np.empty((self._rows, 0))
        self.reference = Reference(stacked, np.array(units), np.array(owner, np.int64), ranking)

    def certify(self) -> set[int]:
        """Compute the duality gap of every solution from the bounds known so far, and choose the next reference.

        Returns:
            Numbers of this process's blocks that must be read to certify the rest.
        """
        needed: set[int] = set()
        norms_outside = self._screening.norms_outside()
        for t, task in enumerate(self.tasks):
            for place, solution in enumerate(task.solutions):
                if task.done(solution):
                    continue
                bound = self._rows * solution.penalty.l1
                limits = upper_limits(self.parts, norms_outside, t, task.vector(solution))
                (peak,) = self._group.maximum(max(bound, solution.peak, *limits.values()))
                found, rounding = self._gap(task, solution, peak)
                # Processors may differ in the last bit, but must agree on what is certified.
                (gap,) = self._group.maximum(found + rounding)
                task.solutions[place] = replace(solution, gap=gap)
                if gap > task.goal:
                    facts = (task.weighted_target, solution.residual, solution.coefficients, solution.penalty)
                    allowed = allowed_peak(*facts, task.goal - rounding)
                    needed |= {number for number, limit in limits.items() if limit > allowed}
        self.choose_reference()
        return needed

    def predict(self, solution: Solution) -> Float64:
        """(T,) Xγ in units of ‖y‖, not weighted."""
        return solution.coefficients @ self._working_set.columns(self._working_set.places(solution.ids))
