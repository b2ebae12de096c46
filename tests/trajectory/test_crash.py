"""SIGKILL at random moments: no committed row is lost, and the resumed store has the bytes of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from store_builders import make_rows, tree

from causalprune.base.json_files import read_json
from causalprune.trajectory import Store
from causalprune.trajectory.codec import BALANCED

ROWS, COLUMNS, BLOCK_ROWS = 160, 3000, 8
HERE = Path(__file__).parent


class Writers:
    """Processes that record, one after the other."""

    def __init__(self, sync):
        sizes = (ROWS, COLUMNS, BLOCK_ROWS, int(sync))
        command = [sys.executable, str(HERE / "crashing_writer.py"), *map(str, sizes)]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
        self._parent = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def start(self, path):
        """Let a process begin to record; its number."""
        self._parent.stdin.write(f"{path}\n")
        self._parent.stdin.flush()
        # The fork may be quicker than the process that made it.
        lines = {self._parent.stdout.readline().strip() for _ in range(2)}
        (number,) = lines - {"started"}
        assert len(lines) == 2
        return int(number)

    def wait(self):
        """Wait until the process has ended; whether it was killed."""
        self._parent.stdin.write("\n")
        self._parent.stdin.flush()
        status = int(self._parent.stdout.readline())
        assert status in (0, signal.SIGKILL)
        return status != 0

    def close(self):
        self._parent.stdin.close()
        assert self._parent.wait() == 0
        self._parent.stdout.close()


def kill_at_random_moments(directory, kills, chance, writers):
    """Kill writers until ``kills`` of them were caught at work; a store that got finished is begun anew."""
    path = directory / "straight" / "t.zarr"
    path.parent.mkdir()
    writers.start(path)
    begin = time.monotonic()
    assert not writers.wait()
    expected, duration = tree(path), time.monotonic() - begin
    values = np.empty((ROWS, COLUMNS), np.float32)
    BALANCED.round(make_rows(ROWS, COLUMNS), values)
    generation, caught = 0, 0
    path = directory / "0" / "t.zarr"
    path.parent.mkdir()
    while caught < kills:
        process = writers.start(path)
        time.sleep(chance.uniform(0, duration))
        os.kill(process, signal.SIGKILL)
        killed = writers.wait()
        caught += killed
        store = Store.open(path)
        assert store.verify() == []
        reader = store.recording()
        checkpoint = path.with_name("checkpoint.json")
        committed = read_json(checkpoint)["rows"] if checkpoint.exists() else 0
        assert reader.num_rows >= committed
        assert reader.read_rows(0, reader.num_rows).tobytes() == values[: reader.num_rows].tobytes()
        if not killed or reader.finished or chance.random() < 0.3:
            writers.start(path)
            assert not writers.wait()
            assert tree(path) == expected
            generation += 1
            path = directory / f"{generation}" / "t.zarr"
            path.parent.mkdir()


def test_twenty_kills(tmp_path):
    with closing(Writers(sync=False)) as writers:
        kill_at_random_moments(tmp_path, 20, random.Random(0), writers)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_two_hundred_kills(tmp_path, seed):
    """Twenty with each of ten seeds, the disk waited for."""
    with closing(Writers(sync=True)) as writers:
        kill_at_random_moments(tmp_path, 20, random.Random(seed), writers)
