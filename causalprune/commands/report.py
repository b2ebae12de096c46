"""``report``: a page with the results of a sweep."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from causalprune.analysis.plots.colors import looks_of
from causalprune.analysis.report.page import Page, Section, is_page
from causalprune.analysis.report.sections import SECTIONS
from causalprune.analysis.report.series import Block, blocks_of
from causalprune.base.errors import DataError, storage_errors
from causalprune.base.files import make_directory, remove_file, remove_partials, write_atomic
from causalprune.base.locks import FileLock
from causalprune.base.options import option_text
from causalprune.base.paths import RunPaths, lock_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._output import StageResult, Work, done_already
from causalprune.commands.sweep.files import read_grid
from causalprune.commands.sweep.table import ResultTable, read_mask
from causalprune.config.report import ReportConfig

_MISSING = {
    "seeds": "standard deviations (--seeds 2 or more)",
    "fit": "the histogram of γ (a --criterion that reads a fit, such as gamma or effect)",
    "criteria": "the overlap of the kept weights (--criterion with two or more)",
    "masks": "the overlap of the kept weights (cells of the same seeds, with their masks)",
    "iterations": "the loss of each iteration (--iterations 2 or more)",
    "hessian": "Hessian eigenvalues and spectra (--set evaluate.hessian=5)",
    "noise": "noise tolerance (--set evaluate.noise=true)",
}
"""What a page may lack, and how to get it."""


@dataclass(frozen=True, kw_only=True)
class ReportResult(StageResult):
    """Result of report.

    Attributes:
        rows: Rows of the table that the page shows.
        points: Rows that the finished sweep has.
        pictures: Names of the PNG files beside the page.
        phase_shift: For each further setting and criterion where the score falls: ``sparsity``, ``low``, ``high``,
            ``width``, ``width_spread``, ``inside``, ``seeds``, ``curves`` and ``undetermined`` of
            :class:`causalprune.analysis.report.phase.PhaseShift`, or the ``reason`` why no seed determines them.
        eigenvalues: For each further setting the lines of
            :meth:`causalprune.analysis.report.series.Block.eigenvalue_lines`.
        coefficients: For each further setting the lines of
            :meth:`causalprune.analysis.report.series.Block.coefficient_lines`, with the ``headline`` of the score.
    """

    rows: int
    points: int
    pictures: list[str]
    phase_shift: list[dict[str, Any]]
    eigenvalues: list[dict[str, Any]]
    coefficients: list[dict[str, Any]] = field(default_factory=list)


def report(config: ReportConfig, reporter: Reporter = SILENT) -> ReportResult:
    """Write ``index.html`` and its pictures from the table of a sweep.

    Args:
        config: Which sweep, and where to write.
        reporter: Shows progress; silent when left out.

    Returns:
        What was written, and the phase shifts.

    Raises:
        DataError: No sweep, or one without a finished cell.
        MismatchError: The folder's ``index.html`` is another page, and ``overwrite`` is not set.
        LockedError: Another process is writing there.
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    work = Work(stage="report", config=config)
    paths = RunPaths(config.run).sweep
    grid = read_grid(paths.grid)
    rows = ResultTable(paths).rows()
    if not rows:
        raise DataError(
            f"{paths.root}",
            expected="at least one finished cell",
            found=f"none of {len(grid['cells'])}",
            remedy="run the sweep, or wait for its first cell",
        )
    folder = config.output or config.run / "report"
    path = folder / "index.html"
    work.outputs = {"page": path}
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
        blocks = blocks_of(
            rows, [n for n in grid["cells"][0]["settings"] if n not in ("sparsity", "criterion", "seed")]
        )
        looks = looks_of(row["criterion"] for row in rows)
        page = Page(config.title or _title(rows))
        _introduce(page, grid, rows)
        several = len(blocks) > 1
        pictures: list[str] = []
        missing: list[list[str]] = []
        with reporter.task("report", len(blocks)) as bar:
            for number, block in enumerate(blocks):
                prefix = f"{number + 1:02d}-" if several else ""
                if several:
                    page.heading(", ".join(f"{name} = {option_text(value)}" for name, value in block.settings.items()))
                section = Section(
                    page, block, looks, lambda row: read_mask(paths, row["cell"]), folder, prefix, 3 if several else 2
                )
                for show in SECTIONS:
                    show(section)
                missing.append(section.missing)
                pictures += section.pictures
                bar.advance(1)
        # What all blocks lack.
        absent = [name for name in missing[0] if all(name in of_one for of_one in missing)]
        if absent:
            page.heading("Not in this report")
            page.text(
                f"With the options of sweep that give it: {'; '.join(_MISSING[name] for name in absent)}.", "note"
            )
        _remove_earlier(folder, path, keep=set(pictures))
        write_atomic(path, page.html().encode())
    return ReportResult(
        **work.common(),
        rows=len(rows),
        points=len(grid["cells"]),
        pictures=pictures,
        phase_shift=[line for block in blocks for line in _phase_lines(block)],
        eigenvalues=[{"settings": b.settings, **line} for b in blocks for line in b.eigenvalue_lines()],
        coefficients=[
            {"settings": b.settings, "headline": asdict(b.headline), **line}
            for b in blocks
            for line in b.coefficient_lines()
        ],
    )


def _remove_earlier(folder: Path, page: Path, keep: set[str]) -> None:
    """Delete the pictures of an earlier report: only those that its page contains byte for byte."""
    if not is_page(page):
        return
    with storage_errors(page, "read"):
        held = page.read_bytes()
        for picture in [p for p in folder.iterdir() if p.suffix == ".png" and p.is_file() and p.name not in keep]:
            if b'base64,%b"' % base64.b64encode(picture.read_bytes()) in held:
                remove_file(picture)


def _title(rows: list[dict[str, Any]]) -> str:
    models = ", ".join(dict.fromkeys(str(row["model"]) for row in rows))
    return f"Pruning {models} on {', '.join(dict.fromkeys(_data_name(row['dataset']) for row in rows))}"


def _data_name(name: str) -> str:
    kind, colon, place = name.partition(":")
    return f"{kind}:{Path(place).name}" if colon and "/" in place else name


def _introduce(page: Page, grid: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    seeds = len({row["seed"] for row in rows})
    total = sum(layer["total"] for layer in rows[0]["layers"])
    iterations = sorted({row.get("iterations", grid["config"].get("iterations")) for row in rows})
    one_shot = "One recording is pruned to every sparsity"
    if "sparsity" not in rows[0]:
        one_shot = "Of one recording every weight with γ = 0 is pruned"
    how = one_shot if iterations == [1] else f"Pruned over {' or '.join(map(str, iterations))} iterations"
    trained = {any(line["iteration"] is None for line in row["iterations_log"]) for row in rows}
    after = ", some trained afterwards" if len(trained) > 1 else " and trained afterwards" if True in trained else ""
    page.text(
        f"{how}{after or ', not trained afterwards'}; {total:,} prunable weights; "
        f"{seeds} seed{'s' if seeds > 1 else ''}. Accuracy, R² and loss are of the test split; ± is one standard "
        "deviation over the seeds. Pruned weights are zeros, which make a network smaller but not faster: dense "
        "kernels compute with them all the same.",
        "lead",
    )
    if len(rows) < len(grid["cells"]):
        page.text(f"The sweep is not finished: {len(rows)} of {len(grid['cells'])} rows are there.", "lead")


def _phase_lines(block: Block) -> list[dict[str, Any]]:
    lines = []
    for series in block.series:
        shift = series.phase_shift()
        found = {"reason": shift} if isinstance(shift, str) else vars(shift)
        lines.append({"settings": block.settings, "criterion": series.criterion, **found})
    return lines
