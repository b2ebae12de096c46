"""What ``info`` says about result files and about a sweep: whether somebody altered them, and how far it has come."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.base.json_files import MAX_JSON_BYTES, read_bytes, sha256_file
from causalprune.base.options import option_text
from causalprune.base.paths import RunPaths, SweepPaths
from causalprune.commands._output import require_unaltered
from causalprune.commands.info.store_description import Problems
from causalprune.commands.sweep.files import DONE, read_cell, read_grid

_UNREADABLE = (CorruptError, DataError, MismatchError)


def check_results(run: RunPaths, problems: Problems) -> None:
    """Compare the result files of a run directory, and those beside its checkpoints and stores, with their seals."""
    for part in (run, *run.iterations()):
        files = [*part.root.glob("*.json"), *(part.root / "results").glob("*.json")]
        _compare([file for file in sorted(files) if file != part.run_config], problems)


def refuse_json(path: Path) -> NoReturn:
    """Say of a JSON file what it is, and what it is about, which can be described.

    Raises:
        DataError: Always, unless the file is damaged.
        CorruptError: Not JSON, or a result that was altered.
    """
    result = require_unaltered(path)
    whole = path.with_suffix("")
    while whole.suffix and not whole.exists():
        whole = whole.with_suffix("")
    if not whole.exists():
        whole = path.parent.parent if path.parent.name == "results" else path.parent
    known = {
        RunPaths(path.parent).run_config: "the options of a run",
        SweepPaths(path.parent).grid: "the grid of a sweep",
    }
    found = f"the result of {result['stage']}" if result else known.get(path, "another JSON file")
    raise DataError(
        f"{path}",
        expected="a store, a checkpoint or a run directory",
        found=found,
        remedy=f"read it as it is, or name {whole}" if result or path in known else "",
    )


def _compare(files: list[Path], problems: Problems) -> None:
    for file in files:
        try:
            require_unaltered(file)
        except DataError:
            continue
        except CorruptError as error:
            # What isn't JSON isn't a result; where one should be, others say so.
            if "altered" in error.found:
                problems.altered.add(file)
                problems.add_damage([str(error)])


def describe_sweep(paths: SweepPaths, problems: Problems, *, verify: bool) -> dict[str, Any] | None:
    """How far a sweep has come, and which of its files were altered.

    Args:
        paths: Its files.
        problems: Problems are added to it.
        verify: Compare the masks of the cells, too.

    Returns:
        ``points``, rows of the whole table; ``rows``, those that it has; ``cells`` and ``done``, what is to be measured
        for them and what has been; ``settings``, the values of each setting; ``steps``, shared steps that are done, by
        stage, and ``unfinished``, those that aren't. None if the grid can't be read.
    """
    try:
        grid = read_grid(paths.grid)
    except _UNREADABLE as error:
        problems.add_damage([str(error)])
        return None
    entries = grid["cells"]
    cells = list(dict.fromkeys(entry["cell"] for entry in entries))
    measured: dict[str, dict[str, Any]] = {}
    for cell in cells:
        problems.add_damage(_read(paths, cell, measured, verify=verify))
    altered = len(problems.lines)
    steps = sorted(path for path in paths.shared("step").parent.glob("*-*") if path.is_dir())
    done = [step for step in steps if (step / DONE).exists()]
    for step in done:
        _compare([step / DONE], problems)
        check_results(RunPaths(step), problems)
    rows = [{"cell": e["cell"], **measured[e["cell"]], **e["settings"]} for e in entries if e["cell"] in measured]
    # A cell that is done is in the table a moment later, and one that somebody deleted is to be measured again.
    missing = set(cells) - measured.keys()
    table = [row for row in _table(paths) if not (isinstance(row, dict) and row.get("cell") in missing)]
    said = {_canonical(row) for row in rows}
    if altered == len(problems.lines) and any(_canonical(row) not in said for row in table):
        problems.add_damage([f"{paths.table} isn't what the cells say: run the same sweep again, which writes it anew"])
    if len(measured) < len(cells):
        problems.lines.append(
            f"the sweep in {paths.root} is not finished, {len(measured)} of {len(cells)} cells are done: run the same "
            "command again"
        )
    settings = {
        name: list(dict.fromkeys(option_text(e["settings"][name]) for e in entries)) for name in entries[0]["settings"]
    }
    return {
        "points": len(entries),
        "rows": len(rows),
        "cells": len(cells),
        "done": len(measured),
        "settings": settings,
        "steps": dict(sorted(Counter(_stage(step) for step in done).items())),
        "unfinished": [step.name for step in steps if step not in done],
    }


def _read(paths: SweepPaths, cell: str, measured: dict[str, dict[str, Any]], *, verify: bool) -> Iterator[str]:
    """Read a cell if it is done; yields what is wrong with it."""
    if not paths.cell(cell).exists():
        return
    try:
        value = read_cell(paths, cell)
    except _UNREADABLE as error:
        yield str(error)
        return
    measured[cell] = value["measured"]
    mask = paths.mask(cell)
    if verify and mask.exists() and sha256_file(mask) != value["mask_sha256"]:
        yield f"{mask} isn't the mask that was written: delete it, or also its .json and run the same sweep again"


def _table(paths: SweepPaths) -> list[Any]:
    try:
        # The last line may be an append that is going on, or that a crash cut short.
        return [json.loads(line) for line in read_bytes(paths.table, MAX_JSON_BYTES).split(b"\n")[:-1]]
    except DataError:
        return []
    except (CorruptError, ValueError):
        return [None]


def _canonical(row: Any) -> str:
    return json.dumps(row, sort_keys=True)


def _stage(step: Path) -> str:
    return step.name.rpartition("-")[0].replace("_", "-")
