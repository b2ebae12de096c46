"""Two processes with gloo: the results of one process within rounding, and one fate for both."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from causalprune_cli.main import main
from command_runner import Pair, Runner
from stage_cases import artifacts, leftovers

from causalprune.base.locks import FileLock
from causalprune.base.paths import is_mask_path
from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, Store
from causalprune.trajectory.schema import BlockShape

TOLERANCE = 1e-5
"""Relative difference of weights and deltas, in the Euclidean norm: float32 sums in another order."""


@pytest.fixture(scope="module")
def pair(runner):
    second = Runner()
    yield Pair(runner, second)
    second.close()


def distance(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(a)


def require_close(one, two):
    for path in (path for path in one.glob("*.safetensors") if not is_mask_path(path)):
        a, b = load_checkpoint(path), load_checkpoint(two / path.name)
        for name, weight in a.weights.items():
            assert distance(weight.numpy(), b.weights[name].numpy()) < TOLERANCE, (path.name, name)
        assert a.info.metrics.get("best_epoch") == b.info.metrics.get("best_epoch")
    if (one / "trajectory.zarr").exists():
        a, b = (Store.open(run / "trajectory.zarr").recording() for run in (one, two))
        assert distance(a.read_rows(0, a.num_rows), b.read_rows(0, b.num_rows)) < 10 * TOLERANCE
        assert distance(a.loss_change, b.loss_change) < 1e-3
        assert np.allclose(a.steps.loss_before, b.steps.loss_before, rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("stage", "batch_size"), [("pretrain", "409"), ("record", "128"), ("record", "409"), ("posttrain", "1000")]
)
def test_two_processes_give_what_one_gives(runner, pair, stages, tmp_path, stage, batch_size):
    """409 leaves a last batch of a single sample, so that one process has none."""
    runs = [stages.copy(stage, tmp_path / name) for name in ("one", "two")]
    options = ["--batch-size", batch_size, "--overwrite"]
    assert runner(*stages.command(stage, runs[0]), *options)[0] == 0
    assert pair(*stages.command(stage, runs[1]), *options) == ([0, 0], "")
    require_close(*runs)
    assert leftovers(runs[1]) == []


LONG = {"pretrain": ["--epochs", "40"], "record": ["--steps", "150"], "posttrain": ["--epochs", "40"]}


@pytest.mark.parametrize(("stage", "rank"), [("pretrain", 0), ("record", 1), ("posttrain", 1)])
def test_a_signal_to_either_stops_both_and_both_resume_to_the_same_bytes(pair, stages, tmp_path, stage, rank):
    quiet, run = (stages.copy(stage, tmp_path / name) for name in ("quiet", "stopped"))
    long = [*LONG[stage], "--checkpoint-every", "never"]
    assert pair(*stages.command(stage, quiet), *long) == ([0, 0], "")
    pair.start(*stages.command(stage, run), *long)
    time.sleep(0.5)
    pair.runners[rank].signal(signal.SIGUSR1)
    codes, error = pair.finish()
    assert codes in ([75, 75], [0, 0]), error
    assert error.count("\n") <= 1
    assert pair(*stages.command(stage, run), *long) == ([0, 0], "")
    assert artifacts(run) == artifacts(quiet)
    assert leftovers(run) == []


def test_what_stops_the_first_stops_the_other_in_the_same_way(pair, stages, tmp_path):
    run = stages.copy("posttrain", tmp_path / "run")
    with FileLock(run / ".final.safetensors.lock"):
        codes, error = pair(*stages.command("posttrain", run))
    assert codes == [7, 7]
    assert error.count("\n") == 1
    assert f"process {os.getpid()}" in error
    codes, error = pair(*stages.command("posttrain", run), "--lr", "-1")
    assert (codes, error.count("\n")) == ([2, 2], 1)


@pytest.mark.parametrize(("stage", "name"), [("pretrain", "pretrained"), ("record", "recorded")])
def test_a_log_that_cannot_be_opened_ends_both(runner, pair, stages, tmp_path, stage, name):
    """Of work that is resumed: where it begins anew, the earlier log is deleted, and that fails before."""
    changes = stages.expected(stage)[1]
    run = stages.copy(stage, tmp_path / "run")
    assert runner(*stages.command(stage, run), fault="SIGKILL", fail_at=round(0.6 * len(changes)))[0] == -9
    assert list(run.glob(f"{name}*.progress"))
    (run / f"logs/{name}/steps.csv").mkdir(parents=True)
    codes, error = pair(*stages.command(stage, run), "--log", "csv")
    first, second = error.splitlines()
    assert codes == [6, 6]
    assert "steps.csv" in first
    # Told so, instead of losing a process in the midst of an exchange.
    assert second.endswith("the first process failed")


def test_a_process_that_is_gone_is_noticed(pair, stages, tmp_path):
    run = stages.copy("pretrain", tmp_path / "run")
    pair.start(*stages.command("pretrain", run), "--epochs", "3000", "--checkpoint-every", "never")
    time.sleep(1)
    pair.runners[1].signal(signal.SIGKILL)
    codes, error = pair.finish()
    assert codes == [6, -9], error
    assert error.count("\n") == 1
    assert "other processes" in error


@pytest.mark.parametrize("stage", ["apply-mask", "evaluate", "run"])
def test_stages_of_one_process_say_so(pair, stages, tmp_path, stage):
    codes, error = pair(*stages.command(stage, tmp_path / "run"))
    assert codes == [2, 2]
    assert "expected one process, found 2" in error
    assert not (tmp_path / "run").exists()


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """A store of 3,000 columns in chunks of 128, so that both processes have many; its y is caused by ten of them."""
    monkeypatch.setattr(BlockShape, "choose", classmethod(lambda cls, columns, *_: cls(columns, 8, 128)))
    rng = np.random.default_rng(5)
    deltas = (rng.standard_normal((40, 3000)) * 10.0 ** rng.uniform(-4, -2, 3000)).astype(np.float32)
    causes = deltas[:, ::300].astype(np.float64) ** 2
    change = -(causes / causes.std(axis=0)).sum(axis=1) + 0.1 * rng.standard_normal(40)
    index = ParameterIndex.from_json(
        [{"name": f"layer{i}.weight", "shape": [1500], "filter_axis": 0} for i in range(2)],
    )
    path = tmp_path / "one.zarr"
    store = Store.create(path, index=index, model={"name": "toy"}, start_sha256="cd" * 32)
    info = RecordingInfo(lr=0.5, batch_size=4, seed=3, start_sha256="ab" * 32, identity="me")
    writer = store.create_recording(info, np.ones(3000, bool), max_rows=40)
    for row in range(40):
        writer.append(
            deltas[row], loss_before=20.0, loss_after=20.0 + change[row], lr=0.5, epoch=0, batch=row, grad_norm=1
        )
    writer.finish()
    return path


def read_fit(path, name="default"):
    fit = Store.open(path).recording().read_fit(name)
    return fit.arrays, fit.attributes["evidence"]


def require_same_fit(one, two, name="default"):
    """The same support and equicorrelation set; γ and the objective but for rounding; both certified."""
    (a, first), (b, second) = read_fit(one, name), read_fit(two, name)
    assert np.array_equal(a["gamma"] != 0, b["gamma"] != 0)
    assert 0 < np.count_nonzero(a["gamma"]) == second["num_nonzero"]
    assert distance(a["gamma"], b["gamma"]) < 1e-6
    assert np.array_equal(a["equicorrelation"], b["equicorrelation"])
    assert np.abs(a["dual_correlation"] - b["dual_correlation"]).max() < 2e-4
    assert first["certified"]
    assert second["certified"]
    assert second["relative_gap"] <= 1e-9
    for key in ("objective", "r2", "r2_held_out"):
        assert first[key] == pytest.approx(second[key], rel=1e-7), key


def test_two_processes_divide_the_columns_of_a_fit(runner, pair, recording, tmp_path):
    two = shutil.copytree(recording, tmp_path / "two.zarr")
    for name, *options in (
        ("path", "--normalize", "column", "--alphas", "6"),
        ("layers", "--scope", "layer", "--alpha-ratio", "0.05"),
    ):
        command = ("fit-gamma", "--quiet", "--tol", "1e-9", "--name", name, *options)
        assert runner(*command, "--store", recording)[0] == 0
        assert pair(*command, "--store", two) == ([0, 0], "")
        require_same_fit(recording, two, name)
    assert pair(*command, "--store", two) == ([0, 0], "")
    codes, error = pair("fit-gamma", "--quiet", "--store", two, "--name", "never", "--tol", "1e-20")
    assert (codes, error.count("\n")) == ([8, 8], 1), error
    assert "never.uncertified" in error
    codes, error = pair("fit-gamma", "--store", two, "--solver", "sgd", "--overwrite")
    assert (codes, error.count("\n")) == ([2, 2], 1), error
    assert leftovers(two) == []


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_torchrun_starts_those_that_fit(recording, tmp_path, device):
    """On GPUs, of which NCCL wants one for each process, they compute the products."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("no two GPUs")
    two = shutil.copytree(recording, tmp_path / "two.zarr")
    command = ["fit-gamma", "--quiet", "--tol", "1e-9", "--device", device, "--store"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    subprocess.run([*launcher, "causalprune", *command, str(two)], env=environment, check=True)
    assert main([*command, str(recording)]) == 0
    require_same_fit(recording, two)


@pytest.mark.slow
def test_torchrun_starts_them(stages, tmp_path):
    one, two = (stages.copy("pretrain", tmp_path / name) for name in ("one", "two"))
    command = [*stages.command("pretrain", two), "--epochs", "3"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    subprocess.run([*launcher, "causalprune", *map(str, command)], env=environment, check=True)
    assert main([*map(str, stages.command("pretrain", one)), "--epochs", "3"]) == 0
    require_close(one, two)
