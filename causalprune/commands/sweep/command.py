"""Sparsities × criteria × seeds × any option into one table, each cell once, however often and wherever it is run."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from causalprune.base.errors import CausalpruneError, LockedError, storage_errors
from causalprune.base.files import PARTIAL, make_directory, remove_partials, remove_tree
from causalprune.base.json_files import read_json
from causalprune.base.leases import Lease
from causalprune.base.paths import RunPaths, SweepPaths
from causalprune.base.progress import LOG_EVERY_SECONDS, LabelledReporter, Reporter, logger
from causalprune.base.runtime import resolve_device
from causalprune.base.signals import StopRequest, stop_signals
from causalprune.commands._output import StageResult
from causalprune.commands.sweep.cell import measure_cell
from causalprune.commands.sweep.grid import Grid, Point
from causalprune.commands.sweep.step import CELL_ERRORS, StepRunner
from causalprune.commands.sweep.table import ResultTable
from causalprune.config.sweep import SweepConfig
from causalprune.data.datasets import last_data_kept

LONGEST_NAP_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class SweepResult(StageResult):
    """Result of sweep.

    Attributes:
        points: Rows of the whole grid.
        done: Rows that are in the table now.
        shard: Cells of this process's shard.
        cells_made: Those that it measured.
        steps_made: How often it ran each stage for them.
        summary: The score of each setting over its seeds, as :meth:`ResultTable.summary` has it.
    """

    points: int
    done: int
    shard: int
    cells_made: int
    steps_made: dict[str, int]
    summary: list[dict[str, Any]]


def sweep(config: SweepConfig, reporter: Reporter | None = None) -> SweepResult:
    """Measure every cell of the grid that isn't measured yet, or this shard's part of them.

    Any number of processes may work in one run directory at the same time. What several cells need is done by the
    first that comes; the others do other cells meanwhile, and wait when there are none. A process that is killed
    leaves what it finished; the step that it was at is taken up where it saved its state.

    A cell that fails for its settings, its data or its numbers (a loss that is not a number) doesn't keep the others
    from being measured; its error is raised at the end, and the next attempt tries it again.

    Args:
        config: The grid and this process's shard of it.
        reporter: Shows progress; silent when left out.

    Returns:
        The scores so far; all rows are in ``results.jsonl``.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    grid = Grid.of(config)
    resolve_device(config.base.device)
    paths = RunPaths(config.run).sweep
    make_directory(paths.root)
    table_lease = Lease(paths.root / ".table.lock", break_lock=config.break_lock, patience=math.inf)
    with table_lease:
        remove_partials(paths.root, paths.grid.name, paths.table.name)
        grid.claim(paths.grid)
    table = ResultTable(paths)
    steps = StepRunner(paths, _shared_steps(grid), config.break_lock)
    worker = _Worker(config, paths, steps, table, table_lease, reporter)
    index, count = config.shard_of()
    cells = list({point.cell: point for point in grid.points}.values())[index::count]
    with stop_signals(config.stop_signals) as stop, last_data_kept():
        worker.measure(cells, stop)
    with table_lease:
        rows = table.write()
    if worker.failures:
        point, error = worker.failures[0]
        more = f" and {len(worker.failures) - 1} more" if len(worker.failures) > 1 else ""
        raise type(error)(
            f"cell {point.label}{more}: {error.subject}",
            expected=error.expected,
            found=error.found,
            remedy=error.remedy or "leave it out in another sweep; the other cells are done",
        ) from error
    return SweepResult(
        stage="sweep",
        inputs={},
        outputs={"table": str(paths.table)},
        already_done=bool(cells) and not worker.cells_made,
        seconds=time.monotonic() - started,
        points=len(grid.points),
        done=len(rows),
        shard=len(cells),
        cells_made=worker.cells_made,
        steps_made=dict(sorted(steps.made.items())),
        summary=table.summary(),
    )


class _Worker:
    """Measures the cells of one process, until each is done or has failed."""

    def __init__(
        self,
        config: SweepConfig,
        paths: SweepPaths,
        steps: StepRunner,
        table: ResultTable,
        table_lease: Lease,
        reporter: Reporter,
    ) -> None:
        self._config, self._paths, self._steps, self._table = config, paths, steps, table
        self._table_lease, self._reporter = table_lease, reporter
        self._unclean = _unclean_cells(paths)
        self.cells_made = 0
        self.failures: list[tuple[Point, CausalpruneError]] = []

    def measure(self, cells: list[Point], stop: StopRequest) -> None:
        """Measure the cells; one that another process is at work on is tried again later."""
        numbers = {point.cell: f"[{number}/{len(cells)}] " for number, point in enumerate(cells, start=1)}
        nap, said = 0.05, time.monotonic()
        pending = cells
        while pending:
            waiting = []
            busy: LockedError | None = None
            for point in pending:
                if stop:
                    raise stop.error(f"{self.cells_made} cells done by this process, all of them in the table")
                try:
                    self._measure(point, numbers[point.cell])
                except LockedError as error:
                    busy = error
                    waiting.append(point)
                except CELL_ERRORS as error:
                    self._reporter.warn(f"cell {point.label} failed: {error}")
                    self.failures.append((point, error))
            if len(waiting) == len(pending):
                if time.monotonic() - said > LOG_EVERY_SECONDS:
                    logger.info("waiting for %s", busy)
                    said = time.monotonic()
                time.sleep(nap)
                nap = min(2 * nap, LONGEST_NAP_SECONDS)
            else:
                nap = 0.05
            pending = waiting

    def _measure(self, point: Point, label: str) -> None:
        result, work = self._paths.cell(point.cell), self._paths.work(point.cell)
        if result.exists() and point.cell not in self._unclean:
            return
        with Lease(result.parent / f".{point.cell}.lock", break_lock=self._config.break_lock):
            remove_partials(result.parent, result.name, self._paths.mask(point.cell).name, work.name)
            score = ""
            if not result.exists():
                score = measure_cell(
                    point, self._steps, LabelledReporter(self._reporter, label), keep=self._config.keep
                )
                self.cells_made += 1
            # By what was wanted when it was measured: networks that were kept stay.
            if work.exists() and not read_json(result).get("kept", True):
                remove_tree(work)
        if not score:
            return
        logger.info("%s%s: %s", label, point.label, score)
        with self._table_lease:
            self._table.write()


def _unclean_cells(paths: SweepPaths) -> set[str]:
    """Cells with networks, or of which a crash left something half-written or half-deleted."""
    folder = paths.work("cell").parent
    make_directory(folder)
    with storage_errors(folder, "read"):
        entries = list(folder.iterdir())
    # The name of a cell has no dot.
    return {p.name.lstrip(".").partition(".")[0] for p in entries if PARTIAL in p.name or p.is_dir()}


def _shared_steps(grid: Grid) -> frozenset[str]:
    cells = {point.cell: point.last for point in grid.points}
    uses = Counter(step.key for last in cells.values() for step in last.ancestry())
    return frozenset(key for key, count in uses.items() if count > 1)
