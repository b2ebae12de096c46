"""Measure sparsities × criteria × seeds × any option into one table; each cell once, in any number of processes."""

from __future__ import annotations

import math
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from causalprune.analysis.report.phase import sparsities_to_add
from causalprune.analysis.report.series import blocks_of
from causalprune.base.errors import CausalpruneError, LockedError, storage_errors
from causalprune.base.files import PARTIAL, make_directory, remove_partials, remove_tree, withdrawn
from causalprune.base.json_files import read_json
from causalprune.base.leases import Lease
from causalprune.base.locks import SAID_AFTER_SECONDS
from causalprune.base.options import option_text, setting_texts
from causalprune.base.paths import RunPaths, SweepPaths
from causalprune.base.progress import LOG_EVERY_SECONDS, SILENT, OnceReporter, Reporter, logger
from causalprune.base.progress.schedule import Schedule
from causalprune.base.signals import StopRequest, stop_signals
from causalprune.commands._output import StageResult, Work
from causalprune.commands._schedule import planned_step
from causalprune.commands.sweep.cell import measure_cell
from causalprune.commands.sweep.grid import Grid, Point
from causalprune.commands.sweep.presence import Presence
from causalprune.commands.sweep.step_runner import CELL_ERRORS, StepRunner
from causalprune.commands.sweep.table import ResultTable
from causalprune.config.sweep import SweepConfig
from causalprune.data.datasets import last_data_kept
from causalprune.pruning.surgery.kept import last_results_kept

LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class SweepResult(StageResult):
    """Result of sweep.

    Attributes:
        points: Rows of the whole grid.
        done: Rows that the table has now.
        shard: Cells of this process's shard.
        cells_made: Cells that this process measured.
        steps_made: How often it ran each stage for them.
        summary: The score of each setting over its seeds, see :meth:`ResultTable.summary`.
    """

    points: int
    done: int
    shard: int
    cells_made: int
    steps_made: dict[str, int]
    summary: list[dict[str, Any]]


@last_data_kept()
def sweep(config: SweepConfig, reporter: Reporter = SILENT) -> SweepResult:
    """Measure the cells of the grid that aren't measured yet, or this shard's part of them.

    Any number of processes may work in one run directory at the same time. The first process that needs a step runs it,
    also for other cells; meanwhile the others measure other cells, and wait if there are none. What a killed process
    finished stays, and its last step is resumed where it saved its state.

    If a cell fails because of its settings, its data or its numbers (a loss that is not a number), the other cells are
    measured all the same; its error is raised at the end, and the next attempt tries it again.

    Args:
        config: The grid and this process's shard of it.
        reporter: Shows progress; silent when left out.

    Returns:
        The scores so far; all rows are in ``results.jsonl``.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    work = Work(stage="sweep", config=config)
    grid = Grid.of(config)
    paths = RunPaths(config.run).sweep
    work.outputs = {"table": paths.table}
    make_directory(paths.root)
    table_lease = Lease(paths.root / ".table.lock", break_lock=config.break_lock, patience=math.inf)
    with ExitStack() as stack:
        with table_lease:
            remove_partials(paths.root, paths.grid.name, paths.table.name)
            stack.enter_context(withdrawn((paths.grid, paths.table), table_lease.path, within=table_lease))
            # Given back before it is looked whether anything was made.
            presence = stack.enter_context(Presence(paths.processes, break_lock=config.break_lock))
            grid.claim(paths, presence.others)
            table = ResultTable(paths)
            table.write()
        index, count = config.shard_of()
        cells = list({point.cell: point for point in grid.points}.values())[index::count]
        schedule = _schedule(cells)
        steps = StepRunner(
            paths, _shared_steps(grid), config.break_lock, schedule, tuple(axis.key for axis in config.vary)
        )
        with (
            stop_signals(config.stop_signals) as stop,
            last_results_kept(),
            reporter.overall(schedule) as shown,
        ):
            worker = _Worker(config, steps, table, table_lease, shown)
            worker.measure(cells, stop)
        with table_lease:
            rows = table.write()
        if worker.failures:
            point, error = worker.failures[0]
            more = f" and {len(worker.failures) - 1} more" if len(worker.failures) > 1 else ""
            done = f"{len(cells) - len(worker.failures)} of {len(cells)} cells are done"
            raise type(error)(
                f"cell {point.label}{more} failed ({done}): {error.subject}",
                expected=error.expected,
                found=error.found,
                remedy=error.remedy or "leave it out in another sweep",
            ) from error
    work.warn(reporter, *(_without_a_shift(grid, rows) if len(rows) == len(grid.points) else []))
    return SweepResult(
        **work.common(already_done=bool(cells) and not worker.cells_made),
        points=len(grid.points),
        done=len(rows),
        shard=len(cells),
        cells_made=worker.cells_made,
        steps_made=dict(sorted(steps.made.items())),
        summary=table.summary(),
    )


def _without_a_shift(grid: Grid, rows: list[dict[str, Any]]) -> list[str]:
    """Which sparsities to add for each criterion of which no phase shift is seen."""
    further = [name for name in grid.points[0].settings if name not in ("sparsity", "criterion", "seed")]
    found: dict[str, list[str]] = {}
    for block in blocks_of(rows, further):
        for series in block.series:
            shift = series.phase_shift()
            if not isinstance(shift, str):
                continue
            where = " ".join([series.criterion, *setting_texts(block.settings)])
            more = sparsities_to_add(series.sparsities, shift)
            remedy = "train the dense network better"
            if "sparsity" not in rows[0]:
                remedy = "vary `fit-gamma.alpha` over more values"
            elif more:
                every = sorted({*series.sparsities, *more})
                remedy = f"add sparsities, such as `sparsity` {option_text(every)}"
            found.setdefault(f"{shift}; {remedy}", []).append(where)
    return [f"no phase shift of {', '.join(names)}: {text}" for text, names in found.items()]


@dataclass
class _Worker:
    """Measures the cells of one process until each is done or has failed."""

    config: SweepConfig
    steps: StepRunner
    table: ResultTable
    table_lease: Lease
    reporter: Reporter
    cells_made: int = 0
    failures: list[tuple[Point, CausalpruneError]] = field(default_factory=list)
    noted: set[str] = field(default_factory=set)

    def measure(self, cells: list[Point], stop: StopRequest) -> None:
        """Measure the cells; one in which another process works is tried again later."""
        unclean = _unclean_cells(self.steps.paths)
        numbers = {point.cell: f"{number}/{len(cells)}" for number, point in enumerate(cells, start=1)}
        pause, next_line = 0.05, math.inf
        pending = cells
        while pending:
            waiting = []
            busy: LockedError | None = None
            for point in pending:
                if stop and self.cells_made:
                    raise stop.error(f"{self.cells_made} cells done by this process, all of them in the table")
                stop.check()
                try:
                    self.steps.cell = f"cell {numbers[point.cell]}"
                    if point.cell in unclean or not self.steps.paths.cell(point.cell).exists():
                        self._measure(point, f"[{numbers[point.cell]}] ", unclean=point.cell in unclean)
                    # Those of a cell that is done, whoever did it.
                    for step in point.last.ancestry():
                        self.steps.schedule.skip(step.key)
                except LockedError as error:
                    busy = error
                    waiting.append(point)
                except CELL_ERRORS as error:
                    self.reporter.warn(f"cell {point.label} failed: {error}")
                    self.failures.append((point, error))
                    self.steps.schedule.fail()
            if len(waiting) == len(pending):
                now = time.monotonic()
                if math.isinf(next_line):
                    next_line = now + SAID_AFTER_SECONDS
                if now >= next_line and busy is not None:
                    logger.info("waiting for %s (%s)", busy.found, busy.subject)
                    next_line = now + LOG_EVERY_SECONDS
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                pause, next_line = 0.05, math.inf
            pending = waiting

    def _measure(self, point: Point, label: str, *, unclean: bool) -> None:
        paths = self.steps.paths
        result, work = paths.cell(point.cell), paths.work(point.cell)
        with Lease(result.parent / f".{point.cell}.lock", break_lock=self.config.break_lock):
            # Looking for them takes the longer the more cells there are, and only a cell that was begun has any.
            if unclean or work.exists():
                remove_partials(result.parent, result.name, paths.mask(point.cell).name, work.name)
            score = ""
            if not result.exists():
                keep = self.config.keep_networks
                # Each seed trains on the same data.
                shown = OnceReporter(self.reporter, label, self.noted)
                score = measure_cell(point, self.steps, shown, keep=keep)
                self.cells_made += 1
            # As the options said when it was measured: networks that were kept stay.
            if work.exists() and not read_json(result).get("kept", True):
                remove_tree(work)
        if not score:
            return
        logger.info("%s%s: %s", label, point.label, score)
        with self.table_lease:
            self.table.add(point.cell)


def _unclean_cells(paths: SweepPaths) -> set[str]:
    """Cells with networks, or with something that a crash left half-written or half-deleted."""
    folder = paths.work("cell").parent
    make_directory(folder)
    with storage_errors(folder, "read"):
        entries = list(folder.iterdir())
    # The name of a cell has no dot.
    return {p.name.lstrip(".").partition(".")[0] for p in entries if PARTIAL in p.name or p.is_dir()}


def _schedule(cells: list[Point]) -> Schedule:
    """The steps that cells need, each once."""
    steps = {step.key: step for point in cells for step in point.last.ancestry() if not step.given}
    return Schedule("sweep", {key: planned_step(step.name, step.stage, step.config) for key, step in steps.items()})


def _shared_steps(grid: Grid) -> frozenset[str]:
    """Keys of the steps that more than one cell needs."""
    cells = {point.cell: point.last for point in grid.points}
    uses = Counter(step.key for last in cells.values() for step in last.ancestry())
    return frozenset(key for key, count in uses.items() if count > 1)
