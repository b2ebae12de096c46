"""The exact fit: which tasks are to be solved in which memory, and what comes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from causalprune.base.errors import UsageError
from causalprune.solver.evidence import FitResult, NotCertifiedError, combine, fold_errors, region_evidence, sparse_path
from causalprune.solver.fit import Ranges, Solver
from causalprune.solver.path import Task
from causalprune.solver.problem import (
    FittedRows,
    LassoProblem,
    SolverOptions,
    bootstrap_counts,
    no_correlation,
    no_movement,
    row_factor,
)
from causalprune.solver.process_group import Division, ProcessGroup
from causalprune.solver.products import DeviceProducts, HostProducts, Products
from causalprune.solver.region import Region
from causalprune.solver.source import ColumnSource, Float32, Float64
from causalprune.solver.streaming import Notify, Scanner
from causalprune.solver.working_set import divide_working_set, plan_memory

SIDE_TOL = 1e-4
"""Relative gap of the fits that only judge the fit itself: held-out steps, folds, resamples."""

RANK_TOL = 1e-4
"""How far a KKT score may be off."""

_EQUAL = 1e-7
"""Correlations this near to the bound, as a share of it, are at it."""


def fit_exactly(
    source: ColumnSource,
    problem: LassoProblem,
    options: SolverOptions,
    ranges: Ranges | None = None,
    notify: Notify | None = None,
    group: ProcessGroup | None = None,
) -> FitResult:
    """Fit γ over all columns, or over each of several ranges of them by itself, and prove it.

    As the first of several processes; the others call :func:`assist` meanwhile.

    Args:
        source: X (T, P) and y (T,).
        problem: The penalty and the scaling.
        options: Memory, passes, side fits.
        ranges: (name, first column, stop) of layers to be fitted each by itself.
        notify: Called with each block that was read.
        group: The processes that divide the blocks of columns; this one alone when left out.

    Raises:
        UsageError: Too little memory, or options that don't go together.
        DataError: X or y that no fit can be made of.
        NotCertifiedError: The passes ran out.
    """
    # Threads of BLAS would compete with those that decode, and lose on matrices as small as an active set's.
    with threadpool_limits(limits=1, user_api="blas"):
        return _ExactFit(source, problem, options, ranges, notify, group or ProcessGroup()).run()


def assist(
    source: ColumnSource,
    problem: LassoProblem,
    options: SolverOptions,
    ranges: Ranges | None,
    group: ProcessGroup,
) -> None:
    """Read and judge this process's columns for the fit of the first one, with the arguments of :func:`fit_exactly`.

    Raises:
        CausalpruneError: As there; that the passes ran out is left to the first process.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        _ExactFit(source, problem, options, ranges, None, group).work()


class _ExactFit:
    def __init__(
        self,
        source: ColumnSource,
        problem: LassoProblem,
        options: SolverOptions,
        ranges: Ranges | None,
        notify: Notify | None,
        group: ProcessGroup,
    ) -> None:
        if options.folds and not problem.num_alphas:
            raise UsageError("`cv`", expected="`alphas=N`, the path to choose from", found="one α")
        self._group = group
        self._source, self._problem, self._options = source, problem, options
        self._names = [name for name, _, _ in ranges] if ranges is not None else None
        spans = [(0, source.num_columns)] if ranges is None else [(start, stop) for _, start, stop in ranges]
        self._rows = FittedRows(source.target, options.row_weights, options.held_out, options.folds)
        sides = max(1, problem.num_alphas) * (1 + len(self._rows.side_rows))
        plan = plan_memory(
            options.memory_bytes,
            num_rows=source.num_rows,
            num_columns=source.num_columns,
            chunk_width=source.block_width,
            vectors=max(sides + 1, options.resamples + 1),
            copies=source.copies,
            processes=group.count,
        )
        capacities = divide_working_set(plan.working_set_columns, [stop - start for start, stop in spans])
        self._regions = [
            self._region(Division(*span, plan.block_width, group), capacity)
            for span, capacity in zip(spans, capacities, strict=True)
        ]
        products: Products = HostProducts() if options.device == "cpu" else DeviceProducts(options.device)
        self._scanner = Scanner(
            source,
            self._regions,
            group=group,
            block_width=plan.block_width,
            ahead=plan.ahead,
            max_passes=options.max_passes,
            products=products,
            seed=options.seed,
            notify=notify,
        )

    def _region(self, division: Division, capacity: int) -> Region:
        problem, rows = self._problem, self._rows
        wanted = problem.wanted_nonzero(self._source.num_rows, division.num_columns)
        main = Task(
            rows.target,
            problem.l1_ratio,
            problem.sign,
            problem.tol,
            None if wanted is not None else problem.alphas,
            num_nonzero=wanted,
            alpha_min_ratio=problem.alpha_min_ratio,
            factor=rows.factor,
        )
        region = Region(
            division,
            [main, *(self._side_task(main, rows.weights * ~left_out) for left_out in rows.side_rows)],
            target_norm=rows.norm,
            normalize=problem.normalize,
            capacity=capacity,
        )
        if not rows.folds:
            region.ranking.place = max(0, problem.num_alphas - 1)
        return region

    def _side_task(self, main: Task, weights: Float64) -> Task:
        """A fit to other row weights at the α of the fit itself."""
        return Task(
            self._rows.target,
            self._problem.l1_ratio,
            self._problem.sign,
            max(SIDE_TOL, self._problem.tol),
            lambda _: [s.alpha for s in main.solutions],
            factor=row_factor(weights),
        )

    def run(self) -> FitResult:
        """As the first of the processes: the result."""
        certified, probabilities = self.work()
        result = self._result(probabilities)
        if not certified:
            raise NotCertifiedError(result, self._problem.tol, self._options.max_passes)
        return result

    def work(self) -> tuple[bool, Float32 | None]:
        """Read, solve and prove, together with the other processes: whether it is, and selection probabilities."""
        self._scanner.first_pass()
        if all(region.alpha_max == 0 for region in self._regions):
            raise no_correlation() if any(region.moved for region in self._regions) else no_movement()
        certified = self._scanner.prove()
        for region in self._regions:
            self._choose(region)
        probabilities = None
        if certified and self._options.resamples:
            certified, probabilities = self._resample()
        if certified and self._options.ranking:
            self._scanner.rank(RANK_TOL)
        for region in self._regions:
            region.collect()
        self._costs = self._scanner.total_costs()
        return certified, probabilities

    def _choose(self, region: Region) -> None:
        """Choose α by the folds; without folds it is the smallest."""
        if self._rows.folds and region.tasks[0].solutions:
            errors = fold_errors(region, self._rows) if self._group.is_first else None
            place = None if errors is None else int(np.argmin(errors.mean(axis=0)))
            region.ranking.place = self._group.broadcast(place)

    def _resample(self) -> tuple[bool, Float32]:
        """Selection probabilities: the share of resamples of the steps in which γ isn't zero at the chosen α."""
        options = self._options
        for region in self._regions:
            chosen = region.ranking.solution
            if chosen is None:
                continue
            for number in range(options.resamples):
                counts = bootstrap_counts(self._source.num_rows, options.seed, number)
                task = self._side_task(region.tasks[0], self._rows.weights * counts)
                task.alphas = lambda _, alpha=chosen.alpha: [alpha]
                task.solutions = [replace(chosen, gap=np.inf)]
                region.tasks.append(task)
        self._scanner.solve()
        certified = self._scanner.prove()
        probability = np.zeros(self._source.num_columns, np.float32)
        for region in self._regions:
            if region.ranking.solution is None:
                continue
            for task in region.tasks[-options.resamples :]:
                probability[task.solutions[0].ids + region.start] += 1.0 / options.resamples
        return certified, probability

    def _result(self, probabilities: Float32 | None) -> FitResult:
        num_columns = self._source.num_columns
        gamma = np.zeros(num_columns)
        dual = np.zeros(num_columns, np.float32)
        evidence, equal = [], []
        paths: list[list[tuple[npt.NDArray[np.int64], Float64]]] = []
        for region in self._regions:
            dual[region.start : region.stop], error = region.ranking.final()
            at_bound = region.ranking.at_bound(_EQUAL)
            equal.append(at_bound + region.start)
            found = region_evidence(region, self._rows, self._problem, self._costs, num_columns, at_bound, error)
            evidence.append(found)
            solution = region.ranking.solution
            if solution is not None:
                ids, values = region.gamma(solution)
                gamma[ids] = values
            paths.append([region.gamma(s) for s in region.tasks[0].solutions])
        extras: dict[str, npt.NDArray[Any]] = {"equicorrelation": np.concatenate(equal)}
        if probabilities is not None:
            extras["selection_probability"] = probabilities
        if self._problem.num_alphas:
            extras |= sparse_path(paths, self._problem.num_alphas)
        if self._names is None:
            return FitResult(gamma, dual, evidence[0], extras=extras, seconds=self._costs.seconds)
        layers = tuple(zip(self._names, evidence, strict=True))
        return FitResult(gamma, dual, combine(layers), layers, extras, self._costs.seconds)


LASSO = Solver(fit_exactly, assist=assist)
"""Exact, certified, streaming; alone or in several processes."""
