"""repair, from checkpoint to checkpoint."""

import json
import os
import shutil
import signal

from causalprune_cli.main import main

from causalprune.commands import repair as command
from causalprune.models.checkpoint import load_checkpoint


def call(*arguments):
    return main([*map(str, arguments), "--quiet"])


def test_the_network_is_better_and_as_sparse(run, capsys):
    assert call("repair", "--run", run, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["samples"] == 1000
    assert all(layer["after"] < layer["before"] for layer in result["metrics"]["layers"])
    pruned, repaired = (load_checkpoint(run / f"{name}.safetensors") for name in ("pruned", "repaired"))
    assert (repaired.mask.numpy() == pruned.mask.numpy()).all()
    for name, keep in repaired.mask.tensors().items():
        assert not repaired.weights[name][~keep].any()
    accuracy = []
    for name in ("pruned", "repaired"):
        evaluation = ["--checkpoint", run / f"{name}.safetensors", "--output", run / f"{name}.json", "--json"]
        assert call("evaluate", *evaluation, "--run", run) == 0
        accuracy.append(json.loads(capsys.readouterr().out)["metrics"]["evaluation"]["top1"])
    assert accuracy[1] > accuracy[0] + 0.05
    assert call("repair", "--run", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["already_done"]
    assert call("info", run) == 0
    assert "repaired" in capsys.readouterr().out


def test_the_same_command_goes_on_after_a_signal_and_ends_with_the_same_bytes(run, tmp_path, monkeypatch):
    whole = shutil.copytree(run, tmp_path / "whole")
    assert call("repair", "--run", whole) == 0
    original = command.repair_layers

    def interrupted(*arguments, **options):
        for layer in original(*arguments, **options):
            os.kill(os.getpid(), signal.SIGTERM)
            yield layer

    for expected in (75, 75, 0):
        with monkeypatch.context() as patch:
            patch.setattr(command, "repair_layers", interrupted)
            assert call("repair", "--run", run) == expected
    assert (run / "repaired.safetensors").read_bytes() == (whole / "repaired.safetensors").read_bytes()
    assert not list(run.glob("*.progress*"))


def test_another_dense_network_is_refused(run, tmp_path, capsys):
    other = tmp_path / "other"
    assert call("pretrain", "--model", "mlp", "--hidden", "12", "--epochs", 0, "--run", other) == 0
    assert call("repair", "--dense", other / "pretrained.safetensors", "--run", run) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--dense" in error
    assert call("repair", "--dense", tmp_path / "none.safetensors", "--run", run) == 3
    # The pruned network itself would be repaired towards what it is.
    assert call("repair", "--dense", run / "pruned.safetensors", "--run", run) == 5
    assert not (run / "repaired.safetensors").exists()
