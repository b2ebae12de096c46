"""SIGKILL at random moments: no committed row is lost, and the resumed store has the bytes of an undisturbed one."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store_builders import make_rows, tree

from causalprune.files import read_json
from causalprune.store import TrajectoryStore
from causalprune.store.codec import CODECS

ROWS, COLUMNS, BLOCK_ROWS = 160, 3000, 8
HERE = Path(__file__).parent


def start(path):
    command = [sys.executable, str(HERE / "crashing_writer.py"), str(path), *map(str, (ROWS, COLUMNS, BLOCK_ROWS))]
    root = str(HERE.parents[1])
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root})


def run(path):
    process = start(path)
    process.stdout.read()
    process.stdout.close()
    assert process.wait() == 0


def kill_at_random_moments(directory, kills, chance, expected, duration):
    """Kill writers until ``kills`` of them were caught at work; a store that got finished is begun anew."""
    values = np.empty((ROWS, COLUMNS), np.float32)
    CODECS["balanced"].round(make_rows(ROWS, COLUMNS), values)
    generation, caught = 0, 0
    path = directory / "0" / "t.zarr"
    path.parent.mkdir()
    while caught < kills:
        process = start(path)
        assert process.stdout.readline() == b"started\n"
        time.sleep(chance.uniform(0, duration))
        process.kill()
        killed = process.wait() != 0
        process.stdout.close()
        caught += killed
        store = TrajectoryStore.open(path)
        assert store.verify() == []
        reader = store.recording()
        checkpoint = path.with_name("checkpoint.json")
        committed = read_json(checkpoint)["rows"] if checkpoint.exists() else 0
        assert reader.num_rows >= committed
        assert reader.read_rows(0, reader.num_rows).tobytes() == values[: reader.num_rows].tobytes()
        if not killed or reader.finished or chance.random() < 0.3:
            run(path)
            assert tree(path) == expected
            generation += 1
            path = directory / f"{generation}" / "t.zarr"
            path.parent.mkdir()


@pytest.fixture
def straight(tmp_path):
    """The files of an undisturbed recording, and the seconds that one takes."""
    (tmp_path / "straight").mkdir()
    path = tmp_path / "straight" / "t.zarr"
    process = start(path)
    process.stdout.readline()
    begin = time.monotonic()
    process.stdout.read()
    process.stdout.close()
    assert process.wait() == 0
    return tree(path), time.monotonic() - begin


def test_five_kills(tmp_path, straight):
    kill_at_random_moments(tmp_path, 5, random.Random(1), *straight)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_kills(tmp_path, straight):
    kill_at_random_moments(tmp_path, int(os.environ.get("CAUSALPRUNE_KILLS", "200")), random.Random(2), *straight)
