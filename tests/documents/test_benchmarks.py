"""The smallest form of the benchmarks that have one prints its tables."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SMALLEST = {
    "codecs.py": ["--smoke"],
    "growth.py": ["--smoke"],
    "gpu.py record": ["--device", "cpu", "--smoke"],
    "gpu.py fit": ["--device", "cpu", "--smoke"],
    "head_to_head.py": ["--smoke"],
    "large.py": ["--smoke"],
    "store.py": ["--smoke"],
    "surgery.py": ["--smoke"],
    "training.py": ["--smoke"],
}


def test_each_that_has_a_smallest_form_is_tried():
    has = {path.name for path in (ROOT / "benchmarks").glob("*.py") if "--smoke" in path.read_text()}
    assert has == {name.split()[0] for name in SMALLEST}


@pytest.mark.parametrize("name", SMALLEST)
def test_it_prints_a_table_without_gaps(name, tmp_path):
    script, *what = name.split()
    command = [sys.executable, str(ROOT / "benchmarks" / script), *what, *SMALLEST[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    tables = re.findall(r"(\|.*\|)\n\|(?:---\|)+\n((?:\|.*\|\n?)+)", done.stdout)
    assert tables
    for head, lines in tables:
        for line in lines.splitlines():
            assert line.count("|") == head.count("|")
            assert "nan" not in line
    assert list(tmp_path.iterdir()) == []
