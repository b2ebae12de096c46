"""Checkpoints, masks, models and saved states that don't go together, and what must work although it looks odd."""

import shutil
import sys

import pytest
import torch
from causalprune_cli.main import main

from causalprune.base import signals as stopping
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.models.checkpoint import load_checkpoint, read_checkpoint_info, save_checkpoint, save_state
from causalprune.models.mask import Mask

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]


def call(*args):
    return main([*map(str, args), "--quiet"])


def refused(capsys, code, *args, says):
    capsys.readouterr()
    assert call(*args) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    assert says in captured.err


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    run = tmp_path_factory.mktemp("artifacts") / "run"
    stages = [["pretrain", *TINY, "--epochs", "1"], ["record", "--steps", "4"], ["fit-gamma"]]
    stages += [["apply-mask", "--sparsity", "0.5"], ["posttrain", "--epochs", "1"]]
    for stage in stages:
        assert call(*stage, "--run", run) == 0
    return run


@pytest.fixture
def run(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "run")


@pytest.mark.parametrize(
    ("stage", "source"),
    [("record", "pretrained"), ("posttrain", "pruned"), ("apply-mask", "recorded"), ("pretrain", "final")],
)
def test_an_output_that_is_the_input(capsys, run, stage, source):
    path = run / f"{source}.safetensors"
    before = path.read_bytes()
    options = {"apply-mask": ["--sparsity", "0.5"], "pretrain": ["--init-from", path]}.get(stage, [])
    (run / "up").mkdir()
    refused(capsys, 2, stage, *options, "--run", run, "--output", run / "up" / ".." / path.name, says="output path")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "1"), ("--lr", "0.2"), ("--amp", "bf16"), ("--batch-size", "32"), ("--epochs", "9")],
)
def test_a_resume_with_another_configuration(capsys, run, option, value, monkeypatch):
    """The saved state stays for the command that it belongs to."""
    command = ["pretrain", *TINY, "--run", run, "--output", run / "new.safetensors"]
    stop_after_a_step(monkeypatch)
    assert call(*command) == 75
    monkeypatch.undo()
    saved = (run / "new.safetensors.progress").read_bytes()
    refused(capsys, 5, *command, option, value, says=f"another configuration ({option} ")
    assert (run / "new.safetensors.progress").read_bytes() == saved
    assert call(*command, option, value, "--overwrite") == 0
    assert not (run / "new.safetensors.progress").exists()


def stop_after_a_step(monkeypatch):
    """As if a signal had come before the first step."""
    monkeypatch.setattr(stopping.StopRequest, "__bool__", lambda self: True)
    monkeypatch.setattr(stopping.StopRequest, "check", lambda self: None)


def test_an_overwriting_command_resumes_too(run, monkeypatch, capsys):
    command = ["record", "--steps", "4", "--run", run, "--overwrite"]
    expected = (run / "recorded.safetensors").read_bytes()
    stop_after_a_step(monkeypatch)
    assert call(*command) == 75
    monkeypatch.undo()
    resumed = []
    real = CheckpointOutput.resume
    monkeypatch.setattr(CheckpointOutput, "resume", lambda *args: resumed.append(real(*args)) or resumed[-1])
    assert call(*command) == 0
    assert resumed[0].info.position["steps"] == 1
    assert (run / "recorded.safetensors").read_bytes() == expected


def test_the_checkpoint_of_another_model(capsys, run, tmp_path):
    other = tmp_path / "other"
    assert call("pretrain", *TINY[:-1], "5", "--epochs", "0", "--run", other) == 0
    weights = other / "pretrained.safetensors"
    refused(capsys, 5, "pretrain", *TINY, "--init-from", weights, "--run", tmp_path / "x", says="shape")
    options = ["--sparsity", "0.5", "--rewind", "pretrained", "--rewind-from", weights, "--overwrite"]
    refused(capsys, 5, "apply-mask", *options, "--run", run, says="layers")


def test_a_store_and_a_checkpoint_of_different_masks(capsys, run):
    options = ["--sparsity", "0.9", "--checkpoint", run / "final.safetensors", "--output", run / "x.safetensors"]
    refused(capsys, 5, "apply-mask", *options, "--run", run, says="the mask that recording")


def test_a_mask_of_another_length(capsys, run):
    path = run / "pruned.safetensors"
    checkpoint = load_checkpoint(path)
    short = {"mask/layers.0.weight": checkpoint.mask.tensors()["layers.0.weight"]}
    save_state(path, type(checkpoint)(checkpoint.info, checkpoint.weights, extra=short))
    refused(capsys, 5, "posttrain", "--run", run, "--output", run / "x.safetensors", says="layers.1.weight")


def test_a_newer_format_is_never_overwritten(capsys, run, monkeypatch):
    from causalprune.models import checkpoint as module

    command = ["pretrain", *TINY, "--run", run, "--output", run / "new.safetensors"]
    stop_after_a_step(monkeypatch)
    monkeypatch.setattr(module, "FORMAT_VERSION", 99)
    assert call(*command) == 75
    monkeypatch.undo()
    progress = run / "new.safetensors.progress"
    saved = progress.read_bytes()
    refused(capsys, 4, *command, says="install a newer causalprune")
    refused(capsys, 4, "record", "--checkpoint", progress, "--run", run, says="install a newer causalprune")
    assert progress.read_bytes() == saved


USER_CODE = """
import numpy as np
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.last = nn.Linear(6, 2)
    def forward(self, x):
        return self.last(self.second(self.first(x).relu()).relu())

class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(__import__("torch").ones(6))
    def forward(self, x):
        return (x * self.scale)[:, :2]

def arrays(**changes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 6)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] > 0).astype(int), **changes}

def lengths(): return arrays(y=np.zeros(59, int))
def empty(): return arrays(x=np.zeros((0, 6), np.float32), y=np.zeros(0, int))
def label(): return arrays(y=np.arange(60) - 1)
def one_class(): return arrays(y=np.zeros(60, int))
"""


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    (tmp_path / "usercode.py").write_text(USER_CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("usercode", None)


@pytest.mark.parametrize(
    ("dataset", "model", "says"),
    [
        ("usercode:arrays", "usercode:Bare", "to prune"),
        ("usercode:lengths", "usercode:Tied", "59"),
        ("usercode:empty", "usercode:Tied", "0"),
        ("usercode:label", "usercode:Tied", "label"),
        ("usercode:one_class", "usercode:Tied", "2 classes"),
    ],
)
def test_data_and_models_that_cannot_be_used(capsys, user_code, tmp_path, dataset, model, says):
    refused(capsys, 3, "pretrain", "--dataset", dataset, "--model", model, "--run", tmp_path / "run", says=says)
    assert not (tmp_path / "run" / "pretrained.safetensors").exists()


def test_tied_weights_run_through_and_stay_tied(user_code, tmp_path):
    run = tmp_path / "run"
    names = [
        "--dataset",
        "usercode:arrays",
        "--model",
        "usercode:Tied",
        "--pretrain-epochs",
        "1",
        "--train-epochs",
        "1",
    ]
    assert call("run", *names, "--iterations", "1", "--sparsity", "0.5", "--posttrain-epochs", "1", "--run", run) == 0
    final = load_checkpoint(run / "final.safetensors")
    assert torch.equal(final.weights["first.weight"], final.weights["second.weight"])
    assert read_checkpoint_info(run / "final.safetensors").sparsity == pytest.approx(0.5, abs=0.02)


def test_code_that_a_checkpoint_names_needs_leave(capsys, user_code, tmp_path, monkeypatch):
    run = tmp_path / "run"
    names = ["--dataset", "usercode:arrays", "--model", "usercode:Tied"]
    assert call("pretrain", *names, "--epochs", "0", "--run", run) == 0
    sys.modules.pop("usercode")
    for stage in (["record", "--steps", "3"], ["evaluate", "--checkpoint", run / "pretrained.safetensors"]):
        refused(capsys, 4, *stage, "--run", run, says="--trust-code")
        assert "usercode" not in sys.modules
    assert call("record", "--steps", "3", "--run", run, "--trust-code") == 0


def test_everything_pruned_already(capsys, run):
    path = run / "pruned.safetensors"
    checkpoint = load_checkpoint(path)
    index = checkpoint.info.index
    nothing = Mask(index, torch.zeros(index.total, dtype=torch.bool))
    save_checkpoint(path, type(checkpoint)(checkpoint.info, checkpoint.weights, nothing))
    to = ["--checkpoint", path, "--run", run, "--output", run / "x.safetensors"]
    refused(capsys, 3, "record", *to, "--store", run / "x.zarr", says="pruned")
    assert not (run / "x.zarr").exists()
    options = ["--criterion", "magnitude", "--sparsity", "0.99"]
    refused(capsys, 3, "apply-mask", *options, *to, says="pruned")


def test_sparsity_zero_changes_nothing(run):
    assert call("apply-mask", "--sparsity", "0", "--run", run, "--output", run / "same.safetensors") == 0
    before, after = load_checkpoint(run / "recorded.safetensors"), load_checkpoint(run / "same.safetensors")
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)
    assert after.info.sparsity == 0


def test_what_a_misspelled_path_means_is_said(prepared, capsys):
    run = prepared
    for stage in ("posttrain", "evaluate", "export"):
        refused(capsys, 3, stage, run / "prunned.safetensors", says=f"did you mean {run}/pruned.safetensors?")
    refused(capsys, 3, "evaluate", run / "another.safetensors", says="found nothing; check the path")
    refused(capsys, 3, "evaluate", f"{run}n/final.safetensors", says=f"did you mean {run}/final.safetensors?")
    refused(capsys, 3, "fit-gamma", run / "trajectry.zarr", says=f"did you mean {run}/trajectory.zarr?")
    refused(capsys, 3, "info", run / "trajectry.zarr", says=f"did you mean {run}/trajectory.zarr?")
    elsewhere = run.parent / "elsewhere"
    for said in (["evaluate", elsewhere / "final.safetensors"], ["evaluate", "--run", elsewhere]):
        refused(capsys, 3, *said, says="run `causalprune posttrain` first, or name another checkpoint")
    # Where nothing is trained after the mask, the pruned network is meant.
    elsewhere.mkdir()
    for name in ("pruned", "repaired"):
        shutil.copy(run / "pruned.safetensors", elsewhere / f"{name}.safetensors")
        says = f"or name another checkpoint, such as {elsewhere}/{name}.safetensors"
        refused(capsys, 3, "export", "--run", elsewhere, says=says)


def test_without_a_store_of_its_own_a_run_directory_has_those_of_its_iterations(prepared, tmp_path, capsys):
    run = tmp_path / "run"
    stores = [run / f"iteration-00{number}" / "trajectory.zarr" for number in range(2)]
    commands = (
        ["fit-gamma"],
        ["diagnose"],
        ["apply-mask", "--sparsity", "0.5", "--checkpoint", prepared / "recorded.safetensors"],
        ["store", "verify"],
        ["store", "compact", "--codec", "small"],
        ["store", "export", "--output", tmp_path / "rows.npz"],
    )
    for command in commands:
        refused(capsys, 3, *command, "--run", run, says="run record first, or give the path of a store")
    for store in stores:
        shutil.copytree(prepared / "trajectory.zarr", store)
    for command in (*commands, ["info", run / "trajectory.zarr"]):
        refused(capsys, 3, *command, "--run", run, says=f"name the store of an iteration, such as {stores[-1]}")
    assert call("store", "verify", stores[-1]) == 0
