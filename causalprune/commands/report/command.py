"""``report``: a page with the results of a sweep or of a run."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from causalprune.analysis.plots.figures import require_matplotlib
from causalprune.analysis.plots.interactive import plotly_script
from causalprune.analysis.report.findings import sweep_findings
from causalprune.analysis.report.page import Page, is_page
from causalprune.analysis.report.series import Block, blocks_of
from causalprune.analysis.report.single import run_findings
from causalprune.base.errors import DataError, storage_errors
from causalprune.base.files import make_directory, remove_file, remove_partials, write_atomic
from causalprune.base.json_files import sha256_file
from causalprune.base.locks import FileLock
from causalprune.base.paths import RunPaths, lock_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._output import StageResult, Work, done_already
from causalprune.commands.report.of_run import read_run, show_run_directory
from causalprune.commands.report.of_sweep import show_sweep, title_of
from causalprune.commands.sweep.files import read_grid
from causalprune.commands.sweep.table import ResultTable
from causalprune.config.report import ReportConfig


@dataclass(frozen=True, kw_only=True)
class ReportResult(StageResult):
    """Result of report.

    Attributes:
        subject: What the page is about, ``sweep`` or ``run``.
        found: What the page says first.
        rows: Rows of a sweep's table that the page shows; of a run its networks.
        points: Rows that the finished sweep has; of a run its networks.
        pictures: Names of the PNG files beside the page.
        tables: Names of the CSV files beside the page.
        phase_shift: For each further setting and criterion where the score falls: ``sparsity``, ``low``, ``high``,
            ``width``, ``width_spread``, ``inside``, ``seeds``, ``curves`` and ``undetermined`` of
            :class:`causalprune.analysis.report.phase.PhaseShift`, or the ``reason`` why no seed determines them.
        eigenvalues: For each further setting the lines of
            :meth:`causalprune.analysis.report.series.Block.eigenvalue_lines`.
        coefficients: For each further setting the lines of
            :meth:`causalprune.analysis.report.series.Block.coefficient_lines`, with the ``headline`` of the score.
    """

    subject: str
    found: list[str]
    rows: int
    points: int
    pictures: list[str]
    tables: list[str]
    phase_shift: list[dict[str, Any]] = field(default_factory=list)
    eigenvalues: list[dict[str, Any]] = field(default_factory=list)
    coefficients: list[dict[str, Any]] = field(default_factory=list)


def report(config: ReportConfig, reporter: Reporter = SILENT) -> ReportResult:
    """Write ``index.html`` and, beside it, its pictures and tables, from a sweep or else from a run.

    Args:
        config: Which run directory, and where to write.
        reporter: Shows progress; silent when left out.

    Returns:
        What was written, and the phase shifts.

    Raises:
        UsageError: matplotlib is missing.
        DataError: Neither a sweep with a finished cell nor a run.
        MismatchError: The folder's ``index.html`` is another page, and ``overwrite`` is not set.
        LockedError: Another process is writing there.
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    require_matplotlib()
    work = Work(stage="report", config=config)
    folder = config.output or config.run / "report"
    path = folder / "index.html"
    work.outputs = {"page": path}
    script = plotly_script()
    if script is None:
        work.warn(reporter, "the page has pictures only: interactive charts need plotly: pip install '.[plots]'")
    run = RunPaths(config.run)
    subject = (_sweep if run.sweep.grid.exists() else _run)(run, config.title, script)
    make_directory(folder)
    with FileLock(lock_path(folder)):
        done_already(
            f"{path}",
            True,
            is_page(path) if path.exists() and not config.overwrite else None,
            expected="no such file, or an earlier page of report",
            found="another file",
            remedy="name another --output, or pass --overwrite to replace it",
        )
        remove_partials(folder)
        subject.show(folder, reporter)
        page = subject.page
        _remove_earlier(folder, path, keep={*page.drawn, *page.tables})
        for name, table in page.tables.items():
            write_atomic(folder / name, table)
        page.beside = [sha256_file(folder / name) for name in (*page.drawn, *page.tables)]
        write_atomic(path, page.html().encode())
    return ReportResult(
        **work.common(),
        subject=subject.name,
        found=subject.found,
        pictures=page.drawn,
        tables=sorted(page.tables),
        **subject.fields,
    )


@dataclass(frozen=True)
class _Subject:
    """What a page is about.

    Attributes:
        name: ``sweep`` or ``run``.
        page: The page, still empty.
        found: What it says first.
        show: Fills the page, with its pictures in a folder.
        fields: What the result says of it.
    """

    name: str
    page: Page
    found: list[str]
    show: Callable[[Path, Reporter], None]
    fields: dict[str, Any]


def _run(run: RunPaths, title: str, script: str | None) -> _Subject:
    read = read_run(run)
    page = Page(title or f"Pruning {read.run.model} on {read.run.dataset}", script)
    networks = len(read.headers)
    return _Subject(
        "run",
        page,
        run_findings(read.run),
        lambda folder, _: show_run_directory(page, run, folder, read),
        {"rows": networks, "points": networks},
    )


def _sweep(run: RunPaths, title: str, script: str | None) -> _Subject:
    grid = read_grid(run.sweep.grid)
    rows = ResultTable(run.sweep).rows()
    if not rows:
        raise DataError(
            f"{run.sweep.root}",
            expected="at least one finished cell",
            found=f"none of {len(grid['cells'])}",
            remedy="run the sweep, or wait for its first cell",
        )
    blocks = blocks_of(rows, [n for n in grid["cells"][0]["settings"] if n not in ("sparsity", "criterion", "seed")])
    page = Page(title or title_of(rows), script)
    return _Subject(
        "sweep",
        page,
        sweep_findings(blocks),
        lambda folder, reporter: show_sweep(page, run.sweep, grid, rows, blocks, folder, reporter),
        {
            "rows": len(rows),
            "points": len(grid["cells"]),
            "phase_shift": [line for block in blocks for line in _phase_lines(block)],
            "eigenvalues": [{"settings": b.settings, **line} for b in blocks for line in b.eigenvalue_lines()],
            "coefficients": [
                {"settings": b.settings, "headline": asdict(b.headline), **line}
                for b in blocks
                for line in b.coefficient_lines()
            ],
        },
    )


def _remove_earlier(folder: Path, page: Path, keep: set[str]) -> None:
    """Delete pictures and tables of an earlier report: those that its page has, or names by their hash."""
    if not is_page(page):
        return
    with storage_errors(page, "read"):
        held = page.read_bytes()
        for file in [
            p for p in folder.iterdir() if p.suffix in (".png", ".csv") and p.is_file() and p.name not in keep
        ]:
            content = file.read_bytes()
            hashed = sha256(content).hexdigest().encode()
            if hashed in held or b'base64,%b"' % base64.b64encode(content) in held:
                remove_file(file)


def _phase_lines(block: Block) -> list[dict[str, Any]]:
    lines = []
    for series in block.series:
        shift = series.phase_shift()
        found = {"reason": shift} if isinstance(shift, str) else vars(shift)
        lines.append({"settings": block.settings, "criterion": series.criterion, **found})
    return lines
