"""The exact fit: what is to be solved, in which memory, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from causalprune.errors import UsageError
from causalprune.solver.memory import plan_memory
from causalprune.solver.problem import LassoProblem, check_target, no_correlation, no_movement
from causalprune.solver.products import DeviceProducts, HostProducts, Products
from causalprune.solver.region import Region
from causalprune.solver.resampling import blocks_of_steps, bootstrap_counts, held_out_tail, row_factor
from causalprune.solver.result import FitEvidence, FitResult, NotCertifiedError, PathPoint
from causalprune.solver.source import ColumnSource, Float64
from causalprune.solver.streaming import Notify, Scanner
from causalprune.solver.task import Task
from causalprune.solver.team import Team

SOLVER_VERSION = "2"
"""Changes whenever the solver may give other numbers."""

SIDE_TOL = 1e-4
"""Relative gap of the fits that only judge the fit itself: held-out steps, folds, resamples."""

RANK_TOL = 1e-4
"""How far a dual correlation may be off."""

_EQUAL = 1e-7
"""Correlations this near to the bound, as a share of it, are at it."""


@dataclass(frozen=True)
class ExactOptions:
    """How the exact solver works, and what it does besides the fit.

    Attributes:
        memory_bytes: Bound on the memory of the whole process.
        max_passes: Passes over the store after which it gives up.
        seed: Of the order of blocks and of resamples.
        device: Where products are computed: ``cpu``, ``cuda`` or ``cuda:N``.
        held_out: Share of the rows, the last ones, on which a fit to the others is judged; 0: none.
        folds: Choose α from the path by cross-validation over so many blocks of steps; 0: don't.
        resamples: Bootstrap resamples of the steps for selection probabilities; 0: none.
        ranking: Whether every column's dual correlation is wanted to within :data:`RANK_TOL`, though it cost a pass.
        row_weights: (T,) weight of each row's squared error; None: all alike.
    """

    memory_bytes: int = 2**31
    max_passes: float = 10.0
    seed: int = 0
    device: str = "cpu"
    held_out: float = 0.2
    folds: int = 0
    resamples: int = 0
    ranking: bool = True
    row_weights: Float64 | None = None


def fit_exactly(
    source: ColumnSource,
    problem: LassoProblem,
    options: ExactOptions,
    ranges: Sequence[tuple[str, int, int]] | None = None,
    notify: Notify | None = None,
    team: Team | None = None,
) -> FitResult:
    """Fit γ over all columns, or over each of several ranges of them by itself, and prove it.

    As the first of several processes; the others call :func:`assist` meanwhile.

    Args:
        source: X (T, P) and y (T,).
        problem: The penalty and the scaling.
        options: Memory, passes, side fits.
        ranges: (name, first column, stop) of layers to be fitted each by itself.
        notify: Called with each block that was read.
        team: The processes that divide the blocks of columns; this one alone when left out.

    Raises:
        UsageError: Too little memory, or options that don't go together.
        DataError: X or y that no fit can be made of.
        NotCertifiedError: The passes ran out.
    """
    _check_options(problem, options)
    # Threads of BLAS would compete with those that decode, and lose on matrices as small as an active set's.
    with threadpool_limits(limits=1, user_api="blas"):
        return _ExactFit(source, problem, options, ranges, notify, team or Team()).run()


def assist(
    source: ColumnSource,
    problem: LassoProblem,
    options: ExactOptions,
    ranges: Sequence[tuple[str, int, int]] | None,
    team: Team,
) -> None:
    """Read and judge this process's columns for the fit of the first one, with the arguments of :func:`fit_exactly`.

    Raises:
        CausalpruneError: As there; that the passes ran out is left to the first process.
    """
    _check_options(problem, options)
    with threadpool_limits(limits=1, user_api="blas"):
        _ExactFit(source, problem, options, ranges, None, team).work()


def _check_options(problem: LassoProblem, options: ExactOptions) -> None:
    if options.folds and not problem.num_alphas:
        raise UsageError("--cv", expected="--alphas N, the path to choose from", found="one α")


class _ExactFit:
    def __init__(
        self,
        source: ColumnSource,
        problem: LassoProblem,
        options: ExactOptions,
        ranges: Sequence[tuple[str, int, int]] | None,
        notify: Notify | None,
        team: Team,
    ) -> None:
        check_target(source.target)
        self._team = team
        self._source, self._problem, self._options = source, problem, options
        self._names = [name for name, _, _ in ranges] if ranges is not None else None
        self._spans = [(a, b) for _, a, b in ranges] if ranges is not None else [(0, source.num_columns)]
        y = source.target
        self._norm = float(np.linalg.norm(y))
        self._target = y / self._norm
        T = source.num_rows
        weights = options.row_weights
        if weights is not None and weights.shape != (T,):
            raise UsageError("row weights", expected=f"{T} numbers", found=f"{weights.shape}")
        self._weights = np.ones(T) if weights is None else weights.astype(np.float64)
        self._factor = None if weights is None else row_factor(self._weights)
        self._tail = held_out_tail(T, options.held_out)
        self._folds = blocks_of_steps(T, options.folds) if options.folds else []
        # Side fits that weigh nothing can't be made: a fold may hold all rows with weight.
        self._side_rows = ([self._tail] if self._tail.any() else []) + self._folds
        for left_out in self._side_rows:
            if not (self._weights * ~left_out).any():
                raise UsageError("row weights", expected="rows with weight in every part", found="a part without")
        sides = max(1, problem.num_alphas) * (1 + len(self._side_rows))
        plan = plan_memory(
            options.memory_bytes,
            num_rows=T,
            num_columns=source.num_columns,
            chunk_width=source.block_width,
            vectors=max(sides + 1, options.resamples + 1),
            copies=source.copies,
            processes=team.count,
        )
        capacities = _shares(plan.pool_columns, [b - a for a, b in self._spans])
        self._regions = [
            self._region(span, c, plan.block_width) for span, c in zip(self._spans, capacities, strict=True)
        ]
        products: Products = HostProducts() if options.device == "cpu" else DeviceProducts(options.device)
        self._scanner = Scanner(
            source,
            self._regions,
            team=team,
            block_width=plan.block_width,
            ahead=plan.ahead,
            max_passes=options.max_passes,
            products=products,
            seed=options.seed,
            notify=notify,
        )

    def _region(self, span: tuple[int, int], capacity: int, block_width: int) -> Region:
        problem = self._problem
        region = Region(
            *span,
            block_width=block_width,
            lead=self._target if self._factor is None else self._target * self._factor**2,
            target_norm=self._norm,
            normalize=problem.normalize,
            l1_ratio=problem.l1_ratio,
            sign=problem.sign,
            capacity=capacity,
            team=self._team,
        )
        wanted = problem.wanted_nonzero(self._source.num_rows, span[1] - span[0])
        main = Task(
            self._target,
            problem.l1_ratio,
            problem.sign,
            problem.tol,
            None if wanted is not None else problem.alphas,
            num_nonzero=wanted,
            alpha_min_ratio=problem.alpha_min_ratio,
            factor=self._factor,
        )
        region.tasks.append(main)
        for left_out in self._side_rows:
            region.tasks.append(self._side_task(main, self._weights * ~left_out))
        if not self._folds:
            region.ranking_place = max(0, problem.num_alphas - 1)
        return region

    def _side_task(self, main: Task, weights: Float64) -> Task:
        """A fit to other row weights at the α of the fit itself."""
        return Task(
            self._target,
            self._problem.l1_ratio,
            self._problem.sign,
            max(SIDE_TOL, self._problem.tol),
            lambda _: [s.alpha for s in main.solutions],
            factor=row_factor(weights),
        )

    def run(self) -> FitResult:
        certified, probabilities = self.work()
        result = self._result(probabilities)
        if not certified:
            raise NotCertifiedError(result, self._problem.tol, self._options.max_passes)
        return result

    def work(self) -> tuple[bool, npt.NDArray[np.float32] | None]:
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
        if self._folds and region.tasks[0].solutions:
            place = int(np.argmin(self._fold_errors(region).mean(axis=0))) if self._team.is_first else None
            region.ranking_place = self._team.from_first(place)

    def _fold_errors(self, region: Region) -> Float64:
        """(folds, α) mean squared error on the rows left out, as a share of the mean of y²."""
        first = len(region.tasks) - len(self._folds) - self._options.resamples * self._resampled
        errors = np.empty((len(self._folds), len(region.tasks[0].solutions)))
        for fold, left_out in enumerate(self._folds):
            weights = self._weights * left_out
            for place, solution in enumerate(region.tasks[first + fold].solutions):
                missed = self._target - region.predict(solution)
                errors[fold, place] = np.average(missed**2, weights=weights) / np.mean(self._target**2)
        return errors

    _resampled = False

    def _resample(self) -> tuple[bool, npt.NDArray[np.float32]]:
        """Selection probabilities: the share of resamples of the steps in which γ isn't zero at the chosen α."""
        options = self._options
        for region in self._regions:
            chosen = region.ranking_solution
            if chosen is None:
                continue
            for number in range(options.resamples):
                counts = bootstrap_counts(self._source.num_rows, options.seed, number)
                task = self._side_task(region.tasks[0], self._weights * counts)
                task.alphas = lambda _, alpha=chosen.alpha: [alpha]
                task.solutions = [replace(chosen, gap=np.inf)]
                region.tasks.append(task)
        self._resampled = True
        self._scanner.solve()
        certified = self._scanner.prove()
        probability = np.zeros(self._source.num_columns, np.float32)
        for region in self._regions:
            if region.ranking_solution is None:
                continue
            for task in region.tasks[-options.resamples :]:
                probability[task.solutions[0].ids + region.start] += 1.0 / options.resamples
        return certified, probability

    def _result(self, probabilities: npt.NDArray[np.float32] | None) -> FitResult:
        gamma = np.zeros(self._source.num_columns)
        dual = np.zeros(self._source.num_columns, np.float32)
        evidence, equal = [], []
        paths: list[list[tuple[npt.NDArray[np.int64], Float64]]] = []
        for region in self._regions:
            dual[region.start : region.stop], error = region.dual_correlations()
            at_bound = region.at_bound(_EQUAL)
            equal.append(at_bound + region.start)
            evidence.append(self._evidence(region, at_bound, error))
            solution = region.ranking_solution
            if solution is not None:
                ids, values = region.gamma(solution)
                gamma[ids] = values
            paths.append([region.gamma(s) for s in region.tasks[0].solutions])
        extras: dict[str, npt.NDArray[Any]] = {"equicorrelation": np.concatenate(equal)}
        if probabilities is not None:
            extras["selection_probability"] = probabilities
        if self._problem.num_alphas:
            extras |= _sparse_rows(paths, self._problem.num_alphas)
        if self._names is None:
            return FitResult(gamma, dual, evidence[0], extras=extras, seconds=self._costs.seconds)
        layers = tuple(zip(self._names, evidence, strict=True))
        return FitResult(gamma, dual, combine(layers), layers, extras, self._costs.seconds)

    def _evidence(self, region: Region, at_bound: npt.NDArray[np.int64], error: float) -> FitEvidence:
        problem, costs = self._problem, self._costs
        task, solution = region.tasks[0], region.ranking_solution
        unit = self._norm**2
        warning = ""
        points = [self._point(region, place) for place in range(len(task.solutions))]
        if self._folds and points:
            errors = self._fold_errors(region)
            mean, spread = errors.mean(axis=0), errors.std(axis=0, ddof=1) / np.sqrt(len(errors))
            points = [
                replace(p, cv_error=float(m), cv_error_std=float(s))
                for p, m, s in zip(points, mean, spread, strict=True)
            ]
        if solution is None:
            warning = "no column correlates with the loss change: every γ is 0"
            chosen = PathPoint(problem.alpha or 0.0, 0, task.null * unit, 0.0, self._r2(np.zeros(len(self._target))))
        else:
            assert region.ranking_place is not None
            chosen = points[region.ranking_place]
            if problem.num_alphas == 0 and chosen.alpha >= region.alpha_max:
                warning = f"alpha {chosen.alpha:.4g} is not below alpha_max {region.alpha_max:.4g}: every γ is 0"
            wanted = task.num_nonzero
            if wanted is not None and chosen.num_nonzero != wanted:
                warning = f"{chosen.num_nonzero:,} nonzero γ instead of {wanted:,}, the nearest there is"
        return FitEvidence(
            solver="lasso",
            solver_version=SOLVER_VERSION,
            num_rows=self._source.num_rows,
            num_columns=region.stop - region.start,
            alpha=chosen.alpha,
            alpha_max=region.alpha_max,
            l1_ratio=problem.l1_ratio,
            objective=chosen.objective,
            duality_gap=0.0 if solution is None else solution.gap * unit,
            relative_gap=max((p.relative_gap for p in points), default=0.0),
            r2=chosen.r2,
            r2_held_out=chosen.r2_held_out,
            num_nonzero=chosen.num_nonzero,
            num_equicorrelated=len(at_bound),
            unique=region.is_unique(at_bound),
            certified=all(task.done(s) for s in task.solutions),
            passes=costs.columns / self._source.num_columns,
            bytes_read=costs.bytes_read,
            dual_correlation_error=error,
            path=tuple(points) if problem.num_alphas else (),
            warning=warning,
        )

    def _point(self, region: Region, place: int) -> PathPoint:
        task, solution = region.tasks[0], region.tasks[0].solutions[place]
        held_out = None
        if self._tail.any():
            side = region.tasks[1].solutions[place]
            held_out = self._r2(region.predict(side), self._tail)
        return PathPoint(
            solution.alpha,
            len(solution.ids),
            solution.objective * self._norm**2,
            solution.gap / task.null,
            self._r2(region.predict(solution)),
            held_out,
        )

    def _r2(self, prediction: Float64, left_out: npt.NDArray[np.bool_] | None = None) -> float:
        """1 − Σw(y − Xγ)²/Σw(y − ȳ)², ȳ the mean of the rows that were fitted."""
        rows = np.ones(len(self._target), bool) if left_out is None else left_out
        fitted = rows if left_out is None else ~left_out
        mean = np.average(self._target[fitted], weights=self._weights[fitted])
        weights = self._weights[rows]
        spread = float(weights @ (self._target[rows] - mean) ** 2)
        if spread == 0:
            return float("nan")
        return 1.0 - float(weights @ (self._target[rows] - prediction[rows]) ** 2) / spread


def combine(layers: Sequence[tuple[str, FitEvidence]]) -> FitEvidence:
    """Evidence of fits to several layers, each by itself: sums, the worst gap, the mean R²."""
    parts = [evidence for _, evidence in layers]
    worst = max(parts, key=lambda e: (e.alpha_max > 0, e.relative_gap))
    held_out = [e.r2_held_out for e in parts if e.r2_held_out is not None]
    return replace(
        worst,
        num_columns=sum(e.num_columns for e in parts),
        objective=sum(e.objective for e in parts),
        num_nonzero=sum(e.num_nonzero for e in parts),
        num_equicorrelated=_sum_known([e.num_equicorrelated for e in parts]),
        unique=None if any(e.unique is None for e in parts) else all(e.unique for e in parts),
        r2=float(np.mean([e.r2 for e in parts])),
        r2_held_out=float(np.mean(held_out)) if held_out else None,
        dual_correlation_error=max(e.dual_correlation_error for e in parts),
        spearman=None,
        certified=all(e.certified for e in parts),
        path=(),
        warning="; ".join(f"{name}: {e.warning}" for name, e in layers if e.warning),
    )


def _sum_known(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _shares(total: int, sizes: list[int]) -> list[int]:
    """Divide a pool among regions: small ones take what they have, the others alike."""
    shares = [0] * len(sizes)
    rest, left = total, len(sizes)
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        shares[place] = max(1, min(sizes[place], rest // left))
        rest, left = rest - shares[place], left - 1
    return shares


def _sparse_rows(
    paths: list[list[tuple[npt.NDArray[np.int64], Float64]]], num_alphas: int
) -> dict[str, npt.NDArray[Any]]:
    """The coefficients of all α as a sparse matrix by rows: start of each row, positions, values."""
    positions, values, starts = [], [], [0]
    for place in range(num_alphas):
        for path in paths:
            if path:
                positions.append(path[place][0])
                values.append(path[place][1])
        starts.append(sum(map(len, positions)))
    return {
        "path_indptr": np.array(starts, np.int64),
        "path_indices": np.concatenate(positions) if positions else np.empty(0, np.int64),
        "path_values": np.concatenate(values) if values else np.empty(0),
    }
