"""The exact fit from top to bottom: set up regions and tasks, first pass, certify, choose α, resample, rank, result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

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
from causalprune.solver.products import DeviceProducts, HostProducts
from causalprune.solver.region import FittedColumns, Region
from causalprune.solver.source import ColumnSource, Float32, Float64, Size
from causalprune.solver.streaming import Notify, Passes, Scanner
from causalprune.solver.working_set import MemoryPlan, divide_working_set, plan_memory

if TYPE_CHECKING:
    from causalprune.solver.device.passes import DevicePasses

SIDE_TOL = 1e-4
"""Relative gap of the side fits, which only judge the fit itself: held-out steps, folds, resamples."""

RANK_TOL = 1e-4
"""Largest error of a KKT score."""

_EQUAL = 1e-7
"""A column whose KKT score is within this of 1 is in the equicorrelation set."""


def fit_exactly(
    source: ColumnSource,
    problem: LassoProblem,
    options: SolverOptions,
    ranges: Ranges | None = None,
    notify: Notify | None = None,
    group: ProcessGroup | None = None,
) -> FitResult:
    """Fit γ over all columns, or over each of several ranges of them by itself, and certify it.

    Of several processes the first one calls this while the others call :func:`assist`. The arguments are those of
    :func:`causalprune.solver.fit.fit`.

    Raises:
        UsageError: Too little memory, or options that exclude each other.
        DataError: X or y that no fit can be made of.
        NotCertifiedError: The passes ran out.
    """
    # BLAS threads would compete with those that decode, and don't help with matrices as small as an active set's.
    with threadpool_limits(limits=1, user_api="blas"):
        fit = _ExactFit(source, problem, options, ranges, notify, group or ProcessGroup())
        certified, probabilities = fit.work()
        result = fit.result(probabilities)
    if not certified:
        raise NotCertifiedError(result, problem.tol, options.max_passes, fit.remedy)
    return result


def assist(
    source: ColumnSource,
    problem: LassoProblem,
    options: SolverOptions,
    ranges: Ranges | None,
    group: ProcessGroup,
) -> None:
    """Take part in a fit of several processes; the arguments are those of :func:`fit_exactly`.

    Raises:
        CausalpruneError: As there, but only the first process raises that the passes ran out.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        _ExactFit(source, problem, options, ranges, None, group).work()


def check(size: Size, problem: LassoProblem, options: SolverOptions, ranges: Ranges | None, processes: int) -> None:
    """Refuse what doesn't depend on the numbers in X and y; see :class:`causalprune.solver.fit.Solver`.

    Raises:
        UsageError: Too little memory, or options that exclude each other, or need more rows or columns.
        DataError: Too few rows.
    """
    # Of losses that change from row to row.
    _prepare(size, np.arange(size.num_rows, dtype=np.float64), problem, options, processes)
    for start, stop in _spans(size, ranges):
        problem.wanted_nonzero(size.num_rows, stop - start)


def _spans(size: Size, ranges: Ranges | None) -> list[tuple[int, int]]:
    """First column and stop of each fit."""
    return [(0, size.num_columns)] if ranges is None else [part[1:] for part in ranges]


def _prepare(
    size: Size, target: Float64, problem: LassoProblem, options: SolverOptions, processes: int
) -> tuple[FittedRows, MemoryPlan]:
    """The rows of a fit, and how its memory is divided."""
    if options.folds and not problem.num_alphas:
        raise UsageError("`cv`", expected="`alphas=N`, the path to choose from", found="one α")
    rows = FittedRows(target, options.row_weights, options.held_out, options.folds)
    sides = max(1, problem.num_alphas) * (1 + len(rows.side_rows))
    vectors = max(sides + 1, options.resamples + 1)
    return rows, plan_memory(options.memory_bytes, size, vectors=vectors, processes=processes)


class _Units(TypedDict):
    """What every region is told about the scaling of the problem."""

    target_norm: float
    normalize: str


@dataclass
class _ExactFit:
    """One process's part of a fit; the arguments are those of :func:`fit_exactly`."""

    source: ColumnSource
    problem: LassoProblem
    options: SolverOptions
    ranges: Ranges | None
    notify: Notify | None
    group: ProcessGroup

    def __post_init__(self) -> None:
        source, problem, options, group = self.source, self.problem, self.options, self.group
        spans = _spans(source, self.ranges)
        self._rows, plan = _prepare(source, source.target, problem, options, group.count)
        capacities = divide_working_set(plan.working_set_columns, [stop - start for start, stop in spans])
        tasks = [self._tasks(stop - start) for start, stop in spans]
        units = _Units(target_norm=self._rows.norm, normalize=problem.normalize)
        self._regions: list[FittedColumns]
        self._passes: Passes
        if (resident := self._on_device(plan)) is not None:
            self._regions = [
                resident.region(span, own, capacity=capacity, **units)
                for span, own, capacity in zip(spans, tasks, capacities, strict=True)
            ]
            self._passes = resident
        else:
            regions = [
                Region(Division(*span, plan.block_width, group), own, capacity=capacity, **units)
                for span, own, capacity in zip(spans, tasks, capacities, strict=True)
            ]
            self._regions = [*regions]
            self._passes = Scanner(
                source,
                regions,
                group=group,
                plan=plan,
                max_passes=options.max_passes,
                products=HostProducts() if options.device == "cpu" else DeviceProducts(options.device),
                seed=options.seed,
                notify=self.notify,
            )
        if not self._rows.folds:
            for region in self._regions:
                region.ranking.place = max(0, problem.num_alphas - 1)

    def _on_device(self, plan: MemoryPlan) -> DevicePasses | None:
        """X on the device, or None if it is to be read in blocks."""
        options = self.options
        wanted = options.device != "cpu" if options.resident is None else options.resident
        if not wanted or self.group.count > 1:
            return None
        # Loads PyTorch, which a fit on the CPU does without.
        from causalprune.solver.device.passes import place_columns

        return place_columns(self.source, options, plan=plan, notify=self.notify)

    def _tasks(self, num_columns: int) -> list[Task]:
        """The fit itself and the side fits of a range of columns."""
        problem, rows = self.problem, self._rows
        wanted = problem.wanted_nonzero(self.source.num_rows, num_columns)
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
        return [main, *(self._side_task(main, rows.weights * ~left_out) for left_out in rows.side_rows)]

    def _side_task(self, main: Task, weights: Float64) -> Task:
        """A fit with other row weights at the α of the fit itself."""
        return replace(
            main,
            tol=max(SIDE_TOL, main.tol),
            alphas=lambda _: [s.alpha for s in main.solutions],
            num_nonzero=None,
            factor=row_factor(weights),
            solutions=[],
        )

    def work(self) -> tuple[bool, Float32 | None]:
        """Read, solve and certify, together with the other processes.

        Returns:
            Whether everything is certified, and the (P,) selection probabilities if they are wanted.
        """
        self._passes.first_pass()
        if all(region.alpha_max == 0 for region in self._regions):
            raise no_correlation() if any(region.moved for region in self._regions) else no_movement()
        for region in self._regions:
            self.problem.check_alpha(region.alpha_max)
        certified = self._passes.certify()
        if self._rows.folds:
            for region in self._regions:
                self._choose(region)
        probabilities = None
        if certified and self.options.resamples:
            certified, probabilities = self._resample()
        if certified and self.options.ranking:
            self._passes.rank(RANK_TOL)
        for region in self._regions:
            region.collect_scores()
        self._costs = self._passes.total_costs()
        return certified, probabilities

    @property
    def remedy(self) -> str:
        """What to do if it isn't certified."""
        return self._passes.remedy

    def _choose(self, region: FittedColumns) -> None:
        """Choose α by cross-validation."""
        if region.tasks[0].solutions:
            first = self.group.is_first
            place = int(np.argmin(fold_errors(region, self._rows).mean(axis=0))) if first else None
            region.ranking.place = self.group.broadcast(place)

    def _resample(self) -> tuple[bool, Float32]:
        """Selection probabilities: the share of resamples of the steps in which γ isn't zero at the chosen α."""
        options = self.options
        for region in self._regions:
            chosen = region.ranking.solution
            if chosen is None:
                continue
            for number in range(options.resamples):
                counts = bootstrap_counts(self.source.num_rows, options.seed, number)
                task = self._side_task(region.tasks[0], self._rows.weights * counts)
                task.alphas = lambda _, alpha=chosen.alpha: [alpha]
                task.solutions = [replace(chosen, checked=False, gap=np.inf)]
                region.tasks.append(task)
        self._passes.solve()
        certified = self._passes.certify()
        probability = np.zeros(self.source.num_columns, np.float32)
        for region in self._regions:
            if region.ranking.solution is None:
                continue
            for task in region.tasks[-options.resamples :]:
                probability[task.solutions[0].ids + region.start] += 1.0 / options.resamples
        return certified, probability

    def result(self, probabilities: Float32 | None) -> FitResult:
        """The result, at the first process."""
        num_columns = self.source.num_columns
        gamma = np.zeros(num_columns)
        dual = np.zeros(num_columns, np.float32)
        evidence, equal = [], []
        paths: list[list[tuple[npt.NDArray[np.int64], Float64]]] = []
        for region in self._regions:
            dual[region.start : region.stop], error = region.ranking.final()
            at_bound = region.ranking.at_bound(_EQUAL)
            equal.append(at_bound + region.start)
            found = region_evidence(region, self._rows, self.problem, self._costs, num_columns, at_bound, error)
            evidence.append(found)
            solution = region.ranking.solution
            if solution is not None:
                ids, values = region.gamma(solution)
                gamma[ids] = values
            paths.append([region.gamma(s) for s in region.tasks[0].solutions])
        extras: dict[str, npt.NDArray[Any]] = {"equicorrelation": np.concatenate(equal)}
        if probabilities is not None:
            extras["selection_probability"] = probabilities
        if self.problem.num_alphas:
            extras |= sparse_path(paths, self.problem.num_alphas)
        if self.ranges is None:
            return FitResult(gamma, dual, evidence[0], extras=extras, seconds=self._costs.seconds)
        layers = tuple((part[0], found) for part, found in zip(self.ranges, evidence, strict=True))
        return FitResult(gamma, dual, combine(layers), layers, extras, self._costs.seconds)


LASSO = Solver(fit_exactly, assist=assist, check=check)
"""Exact, certified and streaming, in one process or several."""
