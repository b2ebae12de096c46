"""Two processes write one recording, each its own columns: the bytes of one writer, whatever happens to either."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_runner import Pair, Runner
from stage_cases import leftovers

from causalprune.trajectory import Store

NETWORK = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "600", "--epochs", "1", "--batch-size", "256"]
RECORD = ["record", "--batch-size", "64", "--checkpoint-every", "20steps", "--quiet"]
"""19,200 columns: with 64 rows or more three chunks, of which the second process has two."""


@pytest.fixture(scope="module")
def pair(runner):
    second = Runner()
    yield Pair(runner, second)
    second.close()


@pytest.fixture(scope="module")
def start(runner, tmp_path_factory):
    run = tmp_path_factory.mktemp("start") / "run"
    assert runner("pretrain", "--run", run, *NETWORK, "--quiet")[0] == 0
    return run


@pytest.fixture(scope="module")
def first_writes(pair, start):
    """A recording of 90 rows, all written by the first of two processes."""
    run = shutil.copytree(start, start.with_name("first"))
    assert pair(*RECORD, "--steps", "90", "--run", run) == ([0, 0], "")
    return run


def files(run):
    """Everything in the store by name, and the checkpoint."""
    paths = [*(run / "trajectory.zarr").rglob("*"), run / "recorded.safetensors"]
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in paths if p.is_file() and p.name != ".lock"}


def wait_for_rows(run, rows):
    store = run / "trajectory.zarr"
    for _ in range(2000):
        if (store / "recordings/000/delta/commits.log").exists() and Store.open(store).recording().num_rows >= rows:
            return
        time.sleep(0.01)
    raise AssertionError


def test_the_files_are_those_that_the_first_process_writes(pair, start, first_writes, tmp_path):
    run = shutil.copytree(start, tmp_path / "run")
    assert pair(*RECORD, "--steps", "90", "--columns-by-rank", "--run", run) == ([0, 0], "")
    assert files(run) == files(first_writes)
    assert Store.open(run / "trajectory.zarr").verify() == []
    assert leftovers(run) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_when_either_is_killed_the_last_commit_stays_and_the_same_command_goes_on(
    pair, start, first_writes, tmp_path, rank
):
    run = shutil.copytree(start, tmp_path / "run")
    command = [*RECORD, "--steps", "90", "--columns-by-rank", "--run", run]
    pair.start(*command)
    wait_for_rows(run, 20)
    pair.runners[rank].signal(signal.SIGKILL)
    codes, _ = pair.finish()
    assert codes[rank] in (-9, 0)
    store = Store.open(run / "trajectory.zarr")
    assert (store.recording().num_rows >= 20, store.verify()) == (True, [])
    # Whoever writes it from here on.
    assert pair(*command[: -2 if rank else -3], "--run", run) == ([0, 0], "")
    assert files(run) == files(first_writes)
    assert leftovers(run) == []


def test_a_signal_stops_both_with_all_rows_stored(pair, start, first_writes, tmp_path):
    run = shutil.copytree(start, tmp_path / "run")
    command = [*RECORD, "--steps", "90", "--columns-by-rank", "--run", run]
    pair.start(*command)
    wait_for_rows(run, 20)
    pair.runners[1].signal(signal.SIGUSR1)
    codes, error = pair.finish()
    assert codes in ([75, 75], [0, 0]), error
    assert pair(*command) == ([0, 0], "")
    assert files(run) == files(first_writes)


def test_what_is_finished_is_recorded_once_more_for_its_missing_checkpoint(pair, first_writes, tmp_path):
    run = shutil.copytree(first_writes, tmp_path / "run")
    (run / "recorded.safetensors").unlink()
    assert pair(*RECORD, "--steps", "90", "--columns-by-rank", "--run", run) == ([0, 0], "")
    assert files(run) == files(first_writes)


def test_a_share_of_the_columns_held(pair, start, tmp_path):
    """With the other ways to record: a share, drawn alike in both, of held steps."""
    runs = [shutil.copytree(start, tmp_path / name) for name in ("first", "own")]
    options = ["--steps", "40", "--columns", "0.9", "--hold"]
    assert pair(*RECORD, *options, "--run", runs[0]) == ([0, 0], "")
    assert pair(*RECORD, *options, "--columns-by-rank", "--run", runs[1]) == ([0, 0], "")
    assert files(runs[1]) == files(runs[0])


@pytest.mark.slow
def test_torchrun_starts_them(start, first_writes, tmp_path):
    run = shutil.copytree(start, tmp_path / "run")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [*RECORD, "--steps", "90", "--columns-by-rank", "--run", str(run)]
    subprocess.run([*launcher, "causalprune", *command], env=environment, check=True)
    assert files(run) == files(first_writes)
