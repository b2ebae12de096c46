"""The table of a sweep: rows are appended as cells are done, and stand in the order of the grid in the end."""

import json

import pytest

from causalprune.base.json_files import seal, write_json
from causalprune.base.paths import SweepPaths
from causalprune.commands.info.results import describe_sweep
from causalprune.commands.info.store_description import Problems
from causalprune.commands.sweep.files import FORMAT, FORMAT_VERSION
from causalprune.commands.sweep.table import ResultTable

POINTS = [("one", 0), ("two", 0), ("one", 1), ("three", 0)]
"""Cells and seeds of the points in the order of the grid; a seed makes no difference to the first cell."""


@pytest.fixture
def paths(tmp_path):
    found = SweepPaths(tmp_path / "sweep")
    found.cell("one").parent.mkdir(parents=True)
    cells = [{"cell": cell, "settings": {"sparsity": 0.5, "seed": seed}} for cell, seed in POINTS]
    value = {"format": FORMAT, "format_version": FORMAT_VERSION, "config": {}, "cells": cells}
    write_json(found.grid, seal(value))
    return found


def measure(paths, *cells):
    for cell in cells:
        line = {"cell": cell, "kept": False, "measured": {"score": len(cell)}, "mask_sha256": ""}
        write_json(paths.cell(cell), seal(line))


def said(paths):
    return [(row["cell"], row["seed"], row["score"]) for row in map(json.loads, paths.table.read_text().splitlines())]


def test_rows_are_appended_and_written_in_order_in_the_end(paths):
    table = ResultTable(paths)
    assert table.write() == []
    for cell in ("three", "one"):
        measure(paths, cell)
        before = paths.table.read_bytes()
        table.add(cell)
        assert paths.table.read_bytes().startswith(before)
    assert said(paths) == [("three", 0, 5), ("one", 0, 3), ("one", 1, 3)]
    measure(paths, "two")
    rows = table.write()
    assert said(paths) == [("one", 0, 3), ("two", 0, 3), ("one", 1, 3), ("three", 0, 5)]
    assert paths.table.read_text() == "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("kept", [0, 1, 30])
def test_a_line_that_a_crash_cut_short_is_no_row(paths, kept):
    table = ResultTable(paths)
    table.write()
    measure(paths, "one", "two")
    table.add("two")
    whole = paths.table.read_bytes()
    table.add("one")
    # The process died while it appended; another one goes on, and a third is started anew.
    paths.table.write_bytes(paths.table.read_bytes()[: len(whole) + kept])
    problems = Problems()
    assert describe_sweep(paths, problems, verify=False)["done"] == 2
    assert not problems.damaged
    other = ResultTable(paths)
    other.rows()
    measure(paths, "three")
    other.add("three")
    assert said(paths) == [("two", 0, 3), ("three", 0, 5)]
    ResultTable(paths).write()
    assert [row[0] for row in said(paths)] == [cell for cell, _ in POINTS]


def test_a_row_that_no_cell_has_is_named(paths):
    table = ResultTable(paths)
    measure(paths, "one")
    table.write()
    paths.table.write_text(paths.table.read_text().replace('"score": 3', '"score": 4'))
    problems = Problems()
    describe_sweep(paths, problems, verify=False)
    assert "isn't what the cells say" in problems.lines[0]
