"""A page of what a sweep found."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.curves import color_of
from causalprune.analysis.report.page import Page, Section, is_page
from causalprune.analysis.report.sections import SECTIONS
from causalprune.analysis.report.series import Block, blocks_of
from causalprune.base.errors import DataError, MismatchError, storage_errors
from causalprune.base.files import make_directory, remove_file, remove_partials, write_atomic
from causalprune.base.locks import FileLock
from causalprune.base.paths import RunPaths, lock_path
from causalprune.base.progress import Reporter
from causalprune.commands._output import StageResult
from causalprune.commands.sweep.grid import read_grid
from causalprune.commands.sweep.table import read_mask, read_results
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
"""What a page leaves out for want of something, and how to get it."""


@dataclass(frozen=True, kw_only=True)
class ReportResult(StageResult):
    """Result of report.

    Attributes:
        rows: Rows of the table that it shows.
        points: Rows that the sweep will have.
        pictures: Names of the PNG files beside the page.
        phase_shift: For each further setting and criterion where the score falls: ``sparsity``, ``low``, ``high``,
            ``width``, ``width_spread``, ``inside``, ``seeds``, ``curves`` and ``undetermined`` of
            :class:`causalprune.analysis.report.phase.PhaseShift`, or ``reason`` why that can't be said of any seed.
        eigenvalues: For each further setting the lines of
            :meth:`causalprune.analysis.report.series.Block.eigenvalue_lines`.
    """

    rows: int
    points: int
    pictures: list[str]
    phase_shift: list[dict[str, Any]]
    eigenvalues: list[dict[str, Any]]


def report(config: ReportConfig, reporter: Reporter | None = None) -> ReportResult:
    """Write ``index.html`` and its pictures from the table of a sweep.

    Args:
        config: Which sweep, and where to.
        reporter: Shows progress; silent when left out.

    Returns:
        What was written, and the phase shifts.

    Raises:
        DataError: No sweep, or one without a finished cell.
        MismatchError: The folder's ``index.html`` is another page, and ``overwrite`` is not set.
        LockedError: Another process is writing there.
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    paths = RunPaths(config.run).sweep
    grid = read_grid(paths.grid)
    rows = read_results(paths)
    if not rows:
        raise DataError(
            f"{paths.root}",
            expected="at least one finished cell",
            found=f"none of {len(grid['cells'])}",
            remedy="run the sweep, or wait for its first cell",
        )
    folder = config.output or config.run / "report"
    path = folder / "index.html"
    make_directory(folder)
    with FileLock(lock_path(folder)):
        if path.exists() and not is_page(path) and not config.overwrite:
            raise MismatchError(
                f"{path}",
                expected="no such file, or an earlier page of report",
                found="another file",
                remedy="name another --output, or pass --overwrite to replace it",
            )
        remove_partials(folder)
        blocks = blocks_of(
            rows, [n for n in grid["cells"][0]["settings"] if n not in ("sparsity", "criterion", "seed")]
        )
        colors = color_of(list(dict.fromkeys(row["criterion"] for row in rows)))
        page = Page(config.title or _title(rows))
        _introduce(page, grid, rows)

        def kept(row: dict[str, Any]) -> npt.NDArray[np.bool_] | None:
            return read_mask(paths, row["cell"])

        pictures: list[str] = []
        phase_shift: list[dict[str, Any]] = []
        eigenvalues: list[dict[str, Any]] = []
        missing: list[list[str]] = []
        with reporter.task("report", len(blocks)) as bar:
            for number, block in enumerate(blocks):
                prefix = f"{number + 1:02d}-" if len(blocks) > 1 else ""
                if len(blocks) > 1:
                    page.heading(", ".join(f"{name} = {value}" for name, value in block.settings.items()))
                section = Section(page, block, colors, kept, folder, prefix, 3 if len(blocks) > 1 else 2)
                for show in SECTIONS:
                    show(section)
                missing.append(section.missing)
                pictures += section.pictures
                phase_shift += _phase_lines(block)
                eigenvalues += [{"settings": block.settings, **line} for line in block.eigenvalue_lines()]
                bar.advance(1)
        # What no block has.
        absent = [name for name in missing[0] if all(name in of_one for of_one in missing)]
        if absent:
            page.heading("Not in this report")
            page.text(
                f"With the options of sweep that give it: {'; '.join(_MISSING[name] for name in absent)}.", "note"
            )
        _remove_earlier(folder, path, keep=set(pictures))
        write_atomic(path, page.html().encode())
    return ReportResult(
        stage="report",
        inputs={},
        outputs={"page": str(path)},
        seconds=time.monotonic() - started,
        rows=len(rows),
        points=len(grid["cells"]),
        pictures=pictures,
        phase_shift=phase_shift,
        eigenvalues=eigenvalues,
    )


def _remove_earlier(folder: Path, page: Path, keep: set[str]) -> None:
    """Remove the pictures of an earlier report: those that its page holds byte for byte, and no others."""
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
