"""record where its checkpoint is missing or its store is taken: what is finished or fitted stays, to the byte."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import artefact_hashes, call, call_json

from causalprune.base.errors import StorageError
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands.record import store as record_store
from causalprune.commands.record.loop import RecordLoop
from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import Store
from causalprune.trajectory.steps import STEP_FIELDS

RECORD = ["record", "--steps", "8", "--checkpoint-every", "never"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    run = tmp_path_factory.mktemp("record-again") / "run"
    tiny = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
    for stage in (["pretrain", *tiny, "--epochs", "1"], RECORD, ["fit-gamma"]):
        assert call(*stage, "--run", run, "--quiet") == 0
    return run


@pytest.fixture
def run(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "run")


def inodes(store):
    """Which files there are: an equal file written anew is another one."""
    return {p: p.stat().st_ino for p in store.rglob("*") if p.is_file()}


def refused(capsys, *args, says):
    capsys.readouterr()
    assert call(*args, "--quiet") == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert says in error


def test_a_missing_checkpoint_is_made_again_beside_the_recording_with_its_fits(run, capsys):
    before, files = artefact_hashes(run), inodes(run / "trajectory.zarr")
    (run / "recorded.safetensors").unlink()
    assert not call_json(capsys, *RECORD, "--run", run)["already_done"]
    assert artefact_hashes(run) == before
    assert inodes(run / "trajectory.zarr") == files
    assert call_json(capsys, *RECORD, "--run", run)["already_done"]


@pytest.mark.parametrize("fails", [False, True])
def test_where_nothing_is_written_the_connection_of_the_processes_is_closed(run, monkeypatch, fails):
    closed, reader = [], Store.open(run / "trajectory.zarr").recording()
    partners = SimpleNamespace(rank=0, count=2, close=lambda: closed.append(1))
    group = SimpleNamespace(count=2, first=lambda action: action(), any=lambda flag: [flag])
    monkeypatch.setattr(record_store, "processes", lambda: group)
    monkeypatch.setattr(record_store, "ColumnPartners", lambda: partners)

    def opened(*_):
        if fails:
            raise StorageError("disk", expected="room", found="none")
        return record_store.RepeatingWriter(reader)

    store = record_store.RecordStore(SimpleNamespace(config=SimpleNamespace(columns_by_rank=True)), run / "t.zarr")
    monkeypatch.setattr(store, "_open_writer", opened)
    try:
        store.open_writer(None, None, None, None, 8, 0)
    except StorageError:
        assert fails
    assert closed == [1]


def test_another_checkpoint_of_the_same_recording(run, capsys):
    files = inodes(run / "trajectory.zarr")
    call_json(capsys, *RECORD, "--run", run, "--output", run / "copy.safetensors")
    assert (run / "copy.safetensors").read_bytes() == (run / "recorded.safetensors").read_bytes()
    assert inodes(run / "trajectory.zarr") == files


def test_a_compacted_recording_is_enough_to_make_the_checkpoint_again(run):
    before = (run / "recorded.safetensors").read_bytes()
    assert call("store", "compact", "--codec", "small", "--run", run, "--quiet") == 0
    (run / "recorded.safetensors").unlink()
    files = inodes(run / "trajectory.zarr")
    assert call(*RECORD, "--run", run, "--quiet") == 0
    assert (run / "recorded.safetensors").read_bytes() == before
    assert inodes(run / "trajectory.zarr") == files


@pytest.mark.parametrize("saved", ["never", "3steps"])
def test_a_recording_is_finished_only_when_its_checkpoint_is_there(tmp_path, prepared, monkeypatch, saved):
    shutil.copy(prepared / "pretrained.safetensors", tmp_path)
    command = [*RECORD[:-1], saved, "--run", tmp_path, "--quiet"]

    def crash(*args):
        raise StorageError("the disk that is gone")

    monkeypatch.setattr("causalprune.trajectory.writer.finish_recording", crash)
    assert call(*command) == 6
    monkeypatch.undo()
    assert (tmp_path / "recorded.safetensors").exists()
    assert not Store.open(tmp_path / "trajectory.zarr").recording().finished
    assert call(*command) == 0
    done = Store.open(tmp_path / "trajectory.zarr").recording()
    assert done.finished
    assert done.digest == Store.open(prepared / "trajectory.zarr").recording().digest
    assert (tmp_path / "recorded.safetensors").read_bytes() == (prepared / "recorded.safetensors").read_bytes()


@pytest.mark.parametrize("saved", ["never", "1steps"])
def test_a_recording_that_fails_leaves_nothing_that_refuses_the_corrected_command(tmp_path, prepared, capsys, saved):
    """Unless there is a saved state: whoever resumes from it needs the rows."""
    shutil.copy(prepared / "pretrained.safetensors", tmp_path)
    command = [*RECORD[:-1], saved, "--run", tmp_path, "--quiet"]
    assert call(*command, "--lr", "1e18") == 3
    capsys.readouterr()
    assert (tmp_path / "trajectory.zarr").exists() is (saved != "never")
    assert call(*command) == (0 if saved == "never" else 5)


@pytest.mark.parametrize("damage", ["fewer", "scalar"])
def test_another_recording_than_this_is_found(run, capsys, damage):
    store = Store.open(run / "trajectory.zarr")
    reader = store.recording()
    scalars = [{name: reader.steps[name][row].item() for name in STEP_FIELDS} for row in range(reader.num_rows)]
    if damage == "fewer":
        scalars.pop()
    else:
        scalars[5]["grad_norm"] = np.nextafter(scalars[5]["grad_norm"], 9)
    (run / "recorded.safetensors").unlink()
    shutil.rmtree(run / "trajectory.zarr/recordings/000")
    with store.create_recording(reader.info, np.ones(reader.num_columns, bool), max_rows=8) as writer:
        for row in scalars:
            writer.append(np.ones(reader.num_columns, np.float32), **row)
        writer.finish()
    says = f"another row {7 if damage == 'fewer' else 5}"
    refused(capsys, *RECORD, "--run", run, says=says)
    assert not (run / "recorded.safetensors").exists()


def test_a_recording_that_comes_out_otherwise_is_kept(run, capsys, monkeypatch):
    """As on a device whose sums have no fixed order."""
    before = artefact_hashes(run)
    checkpoint = (run / "recorded.safetensors").read_bytes()
    (run / "recorded.safetensors").unlink()
    real = RecordLoop._loss
    monkeypatch.setattr(RecordLoop, "_loss", lambda *args: real(*args) * (1 + 1e-12))
    refused(capsys, *RECORD, "--run", run, says="another row 0; use the device")
    (run / "recorded.safetensors").write_bytes(checkpoint)
    assert artefact_hashes(run) == before
    (run / "recorded.safetensors").unlink()
    assert call(*RECORD, "--run", run, "--overwrite", "--quiet") == 0
    assert Store.open(run / "trajectory.zarr").recording().fits == ()


def interrupt(monkeypatch, at):
    """Stop after so many steps, as a signal would."""
    from causalprune.base import signals as stopping

    left = iter(range(at - 1))
    monkeypatch.setattr(stopping.StopRequest, "__bool__", lambda self: next(left, None) is None)
    monkeypatch.setattr(stopping.StopRequest, "check", lambda self: None)


def test_recording_once_more_can_be_interrupted(run, monkeypatch):
    before, files = artefact_hashes(run), inodes(run / "trajectory.zarr")
    (run / "recorded.safetensors").unlink()
    interrupt(monkeypatch, 3)
    assert call(*RECORD, "--run", run, "--quiet") == 75
    monkeypatch.undo()
    resumed = []
    real = CheckpointOutput.resume
    monkeypatch.setattr(CheckpointOutput, "resume", lambda *args: resumed.append(real(*args)) or resumed[-1])
    assert call(*RECORD, "--run", run, "--quiet") == 0
    assert resumed[0].info.position["rows"] == 3
    assert artefact_hashes(run) == before
    assert inodes(run / "trajectory.zarr") == files
    assert not list(run.glob("*.progress*"))


def test_an_unfinished_recording_with_a_fit_is_not_begun_anew(run, capsys, monkeypatch):
    store = ["--store", run / "new.zarr", "--output", run / "new.safetensors", "--run", run]
    interrupt(monkeypatch, 5)
    assert call(*RECORD, *store, "--quiet") == 75
    monkeypatch.undo()
    assert call("fit-gamma", "--store", run / "new.zarr", "--name", "early", "--quiet") == 0
    for saved in run.glob("new.safetensors.progress*"):
        saved.unlink()
    files = inodes(run / "new.zarr")
    refused(capsys, *RECORD, *store, says="recording 000 with the fits early")
    assert inodes(run / "new.zarr") == files
    assert call(*RECORD, *store, "--overwrite", "--quiet") == 0


def test_an_unfinished_recording_without_its_saved_state_is_begun_anew(run, monkeypatch):
    store = ["--store", run / "new.zarr", "--output", run / "new.safetensors", "--run", run]
    interrupt(monkeypatch, 5)
    assert call(*RECORD, *store, "--quiet") == 75
    monkeypatch.undo()
    for saved in run.glob("new.safetensors.progress*"):
        saved.unlink()
    assert call(*RECORD, *store, "--quiet") == 0
    new, old = (load_checkpoint(run / name) for name in ("new.safetensors", "recorded.safetensors"))
    assert all(torch.equal(new.weights[name], old.weights[name]) for name in old.weights)


def test_other_recordings_of_the_store_are_not_deleted(run, capsys):
    store = Store.open(run / "trajectory.zarr")
    first = store.recording()
    (run / "recorded.safetensors").unlink()
    writer = store.create_recording(first.info, first.active, max_rows=8)
    writer.close()
    files = inodes(run / "trajectory.zarr")
    refused(capsys, *RECORD, "--run", run, says="recording 000 with the fits default")
    assert inodes(run / "trajectory.zarr") == files
