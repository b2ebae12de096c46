"""A recording that nobody closed, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store_builders import INFO, append_rows, make_rows, make_store

from causalprune.trajectory import Store

ROWS = 13

BEGUN = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from store_builders import *
writer = make_store(sys.argv[1], 50).create_recording(INFO, np.ones(50, bool), codec="exact", block_rows=8)
append_rows(writer, make_rows({ROWS}, 50))
"""
FORK = """
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    sys.exit(0)
"""


def run(path, end):
    command = [sys.executable, "-c", BEGUN + end, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("end", "code"), [(FORK, 0), ("raise KeyboardInterrupt", -2)])
def test_what_was_recorded_is_committed_at_exit(tmp_path, end, code):
    """Neither a fork, which has no thread that could write, nor the way in which the process ends changes it."""
    done = run(tmp_path / "t.zarr", end)
    assert done.returncode == code, done.stderr
    warning = done.stderr.splitlines()[-1]
    assert "wasn't closed: its 13 rows are committed, but it isn't marked as finished" in warning
    assert done.stderr.count("Traceback") == (code != 0)
    store = Store.open(tmp_path / "t.zarr")
    assert store.verify() == []
    assert store.writer is None
    reader = store.recording()
    assert not reader.finished
    assert np.array_equal(reader.read_rows(0, ROWS), make_rows(ROWS, 50))


def test_four_threads_compress_at_exit_as_well(tmp_path):
    """No new thread can be started then, and those of an executor would be gone."""
    end = """
wide = make_store(sys.argv[1] + ".wide", 70_000).create_recording(
    INFO, np.ones(70_000, bool), codec="exact", block_rows=16, threads=4
)
append_rows(wide, make_rows(20, 70_000))
writer.close()
"""
    done = run(tmp_path / "t.zarr", end)
    assert done.returncode == 0, done.stderr
    assert "its 20 rows are committed" in done.stderr
    store = Store.open(tmp_path / "t.zarr.wide")
    assert store.verify() == []
    assert np.array_equal(store.recording().read_rows(0, 20), make_rows(20, 70_000))


def test_rows_that_cannot_be_committed_at_exit_are_a_line(tmp_path):
    end = "os.rename(sys.argv[1], sys.argv[1] + '.moved')"
    done = run(tmp_path / "t.zarr", end)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "and its last rows are lost: cannot write" in done.stderr


def test_a_closed_one_says_nothing(tmp_path):
    done = run(tmp_path / "t.zarr", "writer.close()")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_writer_without_a_row_of_its_own_says_nothing(tmp_path):
    store = make_store(tmp_path / "t.zarr", 50)
    with store.create_recording(INFO, np.ones(50, bool), codec="exact") as writer:
        append_rows(writer, make_rows(3, 50))
    end = "writer.close(); writer = Store.open(sys.argv[1] + '.other').resume_recording('000', rows=3)"
    store.path.rename(tmp_path / "new.zarr.other")
    done = run(tmp_path / "new.zarr", end)
    assert (done.returncode, done.stderr) == (0, "")
