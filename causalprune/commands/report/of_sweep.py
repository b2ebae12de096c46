"""Fills a page with what a sweep found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causalprune.analysis.plots.colors import looks_of
from causalprune.analysis.plots.curves import fall_chart, score_curves
from causalprune.analysis.report.findings import sweep_findings
from causalprune.analysis.report.page import Cell, Page, csv_of
from causalprune.analysis.report.section import Pictures, Section
from causalprune.analysis.report.sections import SECTIONS
from causalprune.analysis.report.series import Block
from causalprune.base.options import option_text, setting_texts
from causalprune.base.paths import SweepPaths
from causalprune.base.progress import Reporter
from causalprune.commands._output import require_unaltered
from causalprune.commands._said import command_line
from causalprune.commands.report.origin import show_origin
from causalprune.commands.sweep.files import DONE
from causalprune.commands.sweep.table import read_mask

MOST_TOGETHER = 16
"""Lines in the chart that has all settings; of more, nobody tells one from another."""

_MISSING = {
    "seeds": "standard deviations (--seeds 2 or more)",
    "phase-shift": "the phase shift (three or more sparsities)",
    "fit": "the histogram of γ (a --criterion that reads a fit, such as gamma or effect)",
    "criteria": "the overlap of the kept weights (--criterion with two or more)",
    "masks": "the overlap of the kept weights (cells of the same seeds, with their masks)",
    "iterations": "the loss of each iteration (--iterations 2 or more)",
    "hessian": "Hessian eigenvalues and spectra (--set evaluate.hessian=5)",
    "noise": "noise tolerance (--set evaluate.noise=true)",
}
"""What a page may lack, and how to get it."""


def title_of(rows: Sequence[dict[str, Any]]) -> str:
    """The title of a page unless the user says one."""
    models = ", ".join(dict.fromkeys(str(row["model"]) for row in rows))
    return f"Pruning {models} on {', '.join(dict.fromkeys(data_name(row['dataset']) for row in rows))}"


def data_name(name: str) -> str:
    """The name of a data set without the folders of its file."""
    kind, colon, place = name.partition(":")
    return f"{kind}:{Path(place).name}" if colon and "/" in place else name


def show_sweep(
    page: Page,
    paths: SweepPaths,
    grid: dict[str, Any],
    rows: list[dict[str, Any]],
    blocks: Sequence[Block],
    folder: Path,
    reporter: Reporter,
) -> None:
    """Fill a page.

    Args:
        page: The page.
        paths: The sweep's files.
        grid: Its grid.
        rows: The rows of its table, at least one.
        blocks: The same, sorted.
        folder: Folder of the pictures.
        reporter: Shows progress.
    """
    looks = looks_of(row["criterion"] for row in rows)
    for sentence in sweep_findings(blocks):
        page.text(sentence, "found")
    _introduce(page, grid, rows)
    several = len(blocks) > 1
    if several:
        _all_settings(page, blocks, looks, Pictures(folder))
    missing = []
    with reporter.task("report", len(blocks)) as bar:
        for number, block in enumerate(blocks, start=1):
            if several:
                page.heading(", ".join(text.replace("=", " = ", 1) for text in setting_texts(block.settings)))
            pictures = Pictures(folder, f"{number:02d}-" if several else "")
            level = 3 if several else 2
            section = Section(page, block, looks, lambda row: read_mask(paths, row["cell"]), pictures, level)
            for show in SECTIONS:
                show(section)
            missing.append(section.missing)
            bar.advance(1)
    # What all blocks lack.
    absent = [name for name in missing[0] if all(name in of_one for of_one in missing)]
    if absent:
        page.heading("Not in this report")
        page.text(f"With the options of sweep that give it: {'; '.join(_MISSING[name] for name in absent)}.", "note")
    page.tables["results.csv"] = _table(rows, list(grid["cells"][0]["settings"]))
    made_by = [("sweep", command_line("sweep", grid["config"]))]
    # What is varied has its values in `vary`.
    varied = {name.replace("-", "_") for block in blocks for name in block.settings}
    options = {name: value for name, value in grid["config"].items() if name not in varied}
    show_origin(page, folder, made_by, options, _versions(paths), [paths.table, paths.grid])


def _all_settings(page: Page, blocks: Sequence[Block], looks: dict[str, Any], pictures: Pictures) -> None:
    """All settings in one chart: a color per criterion, a dash per combination of settings."""
    if sum(len(block.series) for block in blocks) > MOST_TOGETHER or len({b.headline for b in blocks}) > 1:
        return
    page.heading("All settings together")
    text = "The score against percent pruned, one color per criterion and one dash per combination of settings"
    drawn = [pictures.of("score", score_curves(blocks, "score", looks), text, dark=True)]
    falls = fall_chart(blocks, looks)
    if falls is not None:
        drawn.append(pictures.of("phase-shift", falls, "Where the score falls with each criterion and setting"))
    page.pictures(drawn)
    page.text("Apart, with all that was measured, they follow below.", "note")


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
        f"{seeds} seed{'s' if seeds > 1 else ''}. Accuracy, R² and loss are of the test split"
        f"{'; ± is one standard deviation over the seeds' * (seeds > 1)}. Pruned weights are zeros, which "
        "make a network smaller but not faster: dense kernels compute with them all the same.",
        "lead",
    )
    if len(rows) < len(grid["cells"]):
        page.text(f"The sweep is not finished: {len(rows)} of {len(grid['cells'])} rows are there.", "lead")


def _table(rows: Sequence[dict[str, Any]], settings: Sequence[str]) -> bytes:
    """All rows with what they have as single numbers; lists and tables are in ``results.jsonl`` only."""
    said = [*settings, "model", "dataset", "metric"]
    numbers = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if name not in said and all(isinstance(row.get(name), int | float | None) for row in rows)
    ]
    head = [*said, *numbers]
    cells = [
        [Cell("" if row.get(name) is None else option_text(row[name])) for name in said]
        + [Cell("" if row.get(name) is None else repr(row[name])) for name in numbers]
        for row in rows
    ]
    return csv_of(head, cells)


def _versions(paths: SweepPaths) -> dict[str, str]:
    """The versions that made a shared step, as far as there still is one."""
    for done in sorted(paths.shared("step").parent.glob(f"*/{DONE}")):
        versions = require_unaltered(done).get("versions")
        if isinstance(versions, dict):
            return versions
    return {}
