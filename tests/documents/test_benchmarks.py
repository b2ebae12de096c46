"""The smallest form of the benchmarks prints their tables, and hands table.py lines of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PARTS = {
    "overhead": 1,
    "stages": 2,
    "bytes": 1,
    "reading": 3,
    "memory": 2,
    "zarr": 3,
    "ranks": 2,
    "training": 2,
    "verify": 2,
    "sweep": 2,
    "start": 4,
    "fit-memory": 1,
    "fit-1m": 4,
    "repair": 1,
    "surgeon": 2,
    "large": 3,
}
"""Of the first table, and how many lines each hands it."""

ALONE = {
    "codecs.py": ["--smoke"],
    "gpu.py record": ["--device", "cpu", "--smoke"],
    "gpu.py fit": ["--device", "cpu", "--smoke"],
    "head_to_head.py": ["--smoke"],
    "surgery.py": ["--smoke"],
}
"""What isn't in that table, or is there on a GPU only."""

SENTENCES = {"repair", "surgeon"}
"""Parts that print sentences, no table."""


def run(script, words, folder):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=folder, check=False)


def tables(text):
    """The lines of each table of a text, which have as many cells as its head."""
    found = re.findall(r"(\|.*\|)\n\|(?:---\|)+\n((?:\|.*\|\n?)+)", text)
    for head, lines in found:
        for line in lines.splitlines():
            assert line.count("|") == head.count("|")
            assert "nan" not in line
    return [lines.splitlines() for _, lines in found]


def test_each_that_has_a_smallest_form_is_tried():
    has = {path.name for path in (ROOT / "benchmarks").glob("*.py") if "--smoke" in path.read_text()}
    listed = (ROOT / "benchmarks" / "table.py").read_text()
    commands = dict(re.findall(r'Part\("([\w-]+)", "(\w+\.py)', listed))
    tried = {commands[name] for name in PARTS} | {name.split()[0] for name in ALONE}
    assert has <= tried | {"table.py"}
    with_smoke = {name for name, rest in re.findall(r'Part\("([\w-]+)", "[^"]*"(.*)', listed) if rest.startswith(', "')}
    assert with_smoke == set(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_hands_over_its_lines_and_keeps_what_it_printed(name, tmp_path):
    done = run("table.py", ["--smoke", "--only", name, "--output", "out"], tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    lines, seconds = tables(done.stdout)
    assert len(lines) == PARTS[name]
    assert len(seconds) == 1
    assert (tmp_path / "out" / "table.md").read_text() == done.stdout
    printed = (tmp_path / "out" / f"{name}.txt").read_text()
    assert tables(printed) or (name in SENTENCES and " s; " in printed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_part_that_fails_has_a_line_and_the_others_go_on(tmp_path):
    # A file where the part wants to make its store.
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "mom-tiny.zarr").write_text("")
    words = ["--smoke", "--only", "fit-1m", "surgeon", "--stores", "stores", "--output", "out"]
    done = run("table.py", words, tmp_path)
    assert done.returncode == 1
    lines, _ = tables(done.stdout)
    assert lines[0].split("|")[2].strip().startswith("failed: ")
    assert len(lines) == 1 + PARTS["surgeon"]


def test_a_part_that_takes_too_long_is_stopped(tmp_path):
    done = run("table.py", ["--smoke", "--only", "memory", "--limit", "0.5", "--output", "out"], tmp_path)
    assert done.returncode == 1
    lines, _ = tables(done.stdout)
    assert "stopped after 0.5 s" in lines[0]


@pytest.mark.parametrize("name", ALONE)
def test_it_prints_a_table_without_gaps(name, tmp_path):
    script, *what = name.split()
    done = run(script, [*what, *ALONE[name]], tmp_path)
    assert done.returncode == 0, done.stderr
    assert tables(done.stdout)
    assert list(tmp_path.iterdir()) == []
