"""Faults other than a failing disk: damaged states, dead workers, jumping clocks, leftovers, other writers."""

import json
import os
import random
import signal
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from causalprune_cli.main import main
from PIL import Image
from stage_cases import artifacts, command_of, leftovers
from torch.utils.data import get_worker_info

from causalprune.base import signals as stopping
from causalprune.base.files import log_line
from causalprune.base.locks import FileLock, LockHolder
from causalprune.data.images import ImageFiles
from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import RecordingWriter


def call(stage, run, *more):
    return main([*command_of(stage, run), *map(str, more), "--quiet"])


@pytest.fixture
def stop_after(monkeypatch):
    """Stop a stage after so many steps, as a signal would."""

    def prepare(steps):
        left = iter(range(steps - 1))
        monkeypatch.setattr(stopping.StopRequest, "__bool__", lambda self: next(left, None) is None)
        monkeypatch.setattr(stopping.StopRequest, "check", lambda self: None)

    yield prepare
    monkeypatch.undo()


def harm(path, how):
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[-3] ^= 16
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b""}.get(how, data))


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty"])
@pytest.mark.parametrize("stage", ["pretrain", "record", "posttrain"])
def test_the_fallback_takes_the_place_of_a_damaged_state(stages, tmp_path, monkeypatch, stop_after, stage, how):
    expected, _ = stages.expected(stage)
    run = stages.copy(stage, tmp_path / "run")
    every = ["--checkpoint-every", "1steps", "--overwrite"]
    stop_after(2 if stage == "posttrain" else 3)
    assert call(stage, run, *every) == 75
    monkeypatch.undo()
    (newest,) = run.glob("*.progress")
    (fallback,) = run.glob("*.progress.previous")
    at = [load_checkpoint(path).info.position for path in (fallback, newest)]
    assert at[0] != at[1]
    harm(newest, how)
    assert call(stage, run, *every) == 0
    assert artifacts(run) == expected
    assert leftovers(run) == []
    # Both of them: from the beginning, to the same end.
    stop_after(2 if stage == "posttrain" else 3)
    assert call(stage, run, *every) == 75
    monkeypatch.undo()
    harm(newest, how)
    harm(fallback, how)
    assert call(stage, run, *every) == 0
    assert artifacts(run) == expected


def test_a_clock_that_jumps_changes_nothing(stages, tmp_path, monkeypatch):
    expected, _ = stages.expected("run")
    chance, real = random.Random(1), time.time
    monkeypatch.setattr(time, "time", lambda: real() + chance.uniform(-1e9, 1e9))
    assert call("run", tmp_path / "run") == 0
    found = artifacts(tmp_path / "run")
    assert found == expected


def test_what_crashes_left_behind_is_removed(stages, tmp_path):
    run = stages.copy("record", tmp_path / "run")
    (run / ".recorded.safetensors.partial-1-1").write_bytes(b"half a checkpoint")
    (run / ".recorded.safetensors.progress.partial-99-0").write_bytes(b"")
    (run / ".recorded.safetensors.lock").write_bytes(b"{")
    (run / ".trajectory.zarr.partial-7-7" / "recordings").mkdir(parents=True)
    (run / "results" / ".record.json.partial-5-5").write_bytes(b"{")
    assert call("record", run) == 0
    assert leftovers(run) == []
    assert artifacts(run) == stages.expected("record")[0]


def test_a_torn_end_of_the_commit_log_costs_nothing(stages, tmp_path, monkeypatch, stop_after):
    run = stages.copy("record", tmp_path / "run")
    stop_after(3)
    assert call("record", run) == 75
    monkeypatch.undo()
    with (run / "trajectory.zarr/recordings/000/delta/commits.log").open("ab") as log:
        log.write(b'1234abcd {"type":"commit","sha')
    assert call("record", run) == 0
    assert artifacts(run) == stages.expected("record")[0]


def test_a_writer_thread_that_raises_ends_the_stage(stages, tmp_path, monkeypatch, capsys):
    run = stages.copy("record", tmp_path / "run")

    def fail(*args):
        raise MemoryError("no memory for a block")

    monkeypatch.setattr(RecordingWriter, "_commit", fail)
    assert call("record", run) == 6
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "memory: expected more, found no memory for a block" in error
    monkeypatch.undo()
    assert call("record", run) == 0
    assert artifacts(run) == stages.expected("record")[0]


def test_a_data_loader_worker_that_dies_ends_the_stage(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "photos" / "train" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
    monkeypatch.setattr("causalprune.data.sources.folders.IN_MEMORY_BYTES", 0)
    options = ["--dataset", f"imagefolder:{tmp_path / 'photos'}", "--model", "mlp", "--hidden", "4", "--epochs", "1"]
    command = ["pretrain", *options, "--batch-size", "4", "--run", str(tmp_path / "run"), "--quiet"]
    real = ImageFiles.read

    def die_in_a_worker(*args):
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "read", die_in_a_worker)
        code = main([*command, "--num-workers", "1"])
    captured = capsys.readouterr()
    assert (code, captured.err.count("\n")) == (6, 1), captured.err
    assert "fewer --num-workers" in captured.err
    assert main([*command, "--num-workers", "1"]) == 0


WRITERS = {
    "pretrain": ".pretrained.safetensors.lock",
    "record": "trajectory.zarr/.lock",
    "fit-gamma": "trajectory.zarr/.fits-lock",
    "apply-mask": ".pruned.safetensors.lock",
    "posttrain": ".final.safetensors.lock",
    "evaluate": "results/.evaluate.json.lock",
    "diagnose": "results/.diagnose.json.lock",
    "export": ".exported.pt.lock",
    "store export": ".delta.npz.lock",
    "store compact": "trajectory.zarr/.lock",
    "store merge": ".merged.zarr.lock",
    "run": ".run.json.lock",
    "report": ".report.lock",
}


@pytest.mark.parametrize("stage", list(WRITERS))
def test_a_second_writer_is_turned_away_and_what_the_dead_left_is_in_nobodys_way(runner, stages, tmp_path, stage):
    run = stages.copy("evaluate" if stage == "evaluate" else stage, tmp_path / "run")
    lock = run / WRITERS[stage]
    if stage == "record":
        # Its store is there, and another process is recording into it.
        run = stages.copy("fit-gamma", tmp_path / "other")
        (run / "recorded.safetensors").unlink()
        lock = run / WRITERS[stage]
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        code, _, error = runner(*stages.command(stage, run))
        assert (code, error.count("\n")) == (7, 1), error
        assert f"process {os.getpid()} on" in error
        assert runner("info", run, "--quiet", "--json")[0] in (0, 3)
    lock.write_text(json.dumps(asdict(replace(LockHolder.current(), host="elsewhere"))))
    assert runner(*stages.command(stage, run))[0] == 0
    assert not lock.exists()


def test_a_log_line_that_a_full_disk_cut_short_stays_a_line(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"time": 1}\n{"time": 2, "sta')
    log_line(log, '{"time": 3}')
    assert log.read_bytes() == b'{"time": 1}\n{"time": 2, "sta\n{"time": 3}\n'
