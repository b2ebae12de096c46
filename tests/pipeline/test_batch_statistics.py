"""Running statistics of batch normalization after a mask: re-estimated, said, and only where nothing adapts them."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from causalprune_cli.main import main

from causalprune.models.checkpoint import load_checkpoint

NETWORK = """
from torch import nn

def net(input_shape, num_outputs):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(64, num_outputs),
    )
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run directory with a pruned network."""
    folder = tmp_path_factory.mktemp("statistics")
    (folder / "whitened.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        call("pretrain", "--model", "whitened:net", "--dataset", "digits", "--epochs", 3, "--lr", 0.02)
        call("apply-mask", "--checkpoint", "run/pretrained.safetensors", "--criterion", "magnitude", "--sparsity", 0.85)
        yield folder
    sys.modules.pop("whitened", None)


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments, code=0):
    trust = () if arguments[0] in ("pretrain", "run", "sweep") else ("--trust-code",)
    assert main([*map(str, arguments), *trust, "--quiet"]) == code


def evaluation(capsys, name, *options):
    capsys.readouterr()
    call("evaluate", "--checkpoint", f"run/{name}.safetensors", "--json", *options)
    return json.loads(capsys.readouterr().out)["metrics"]["evaluation"]


def statistics(path):
    return {n: t for n, t in load_checkpoint(Path(path)).weights.items() if "running" in n}


def same(path, other):
    first, second = statistics(path), statistics(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_evaluate_measures_a_pruned_network_with_its_own_statistics(folder, capsys):
    before = (folder / "run/pruned.safetensors").read_bytes()
    stale, own = evaluation(capsys, "pruned", "--reestimate-batchnorm", 0), evaluation(capsys, "pruned")
    assert "batchnorm" not in stale
    assert own["batchnorm"] == {"samples": 1000, "saved": False}
    assert own["top1"] > stale["top1"] + 0.05
    assert json.loads((folder / "run/results/evaluate.json").read_text())["metrics"]["evaluation"] == own
    # The file stays as it is, and the same seed gives the same numbers.
    assert (folder / "run/pruned.safetensors").read_bytes() == before
    assert evaluation(capsys, "pruned") == own
    some = evaluation(capsys, "pruned", "--reestimate-batchnorm", 200)
    assert some["batchnorm"]["samples"] == 200
    assert some["loss"] != own["loss"]
    assert evaluation(capsys, "pruned", "--reestimate-batchnorm", 10**6)["batchnorm"]["samples"] == 1294
    call("evaluate", "--checkpoint", "run/pruned.safetensors")
    said = " ".join(capsys.readouterr().out.split())
    assert "samples of batch statistics 1,000" in said
    assert "re-estimated after the mask, in memory only" in said


def test_a_pruned_network_as_the_reference_has_its_own_statistics_as_well(folder, capsys):
    own = evaluation(capsys, "pruned")
    dense = evaluation(capsys, "pretrained", "--reference", "run/pruned.safetensors")
    assert (dense["reference"]["loss"], dense["reference"]["top1"]) == (own["loss"], own["top1"])
    assert dense["loss"] < own["loss"]


def test_neither_a_dense_nor_a_trained_nor_a_repaired_network_gets_others(folder, capsys):
    call("posttrain", "--epochs", 1)
    call("repair")
    for name in ("pretrained", "final", "repaired"):
        found, off = evaluation(capsys, name), evaluation(capsys, name, "--reestimate-batchnorm", 0)
        assert "batchnorm" not in found
        assert found == off
    assert same("run/repaired.safetensors", "run/pretrained.safetensors")
    # Not by way of a training without an epoch, either.
    call("posttrain", "--epochs", 0, "--checkpoint", "run/repaired.safetensors", "--output", "run/kept.safetensors")
    assert same("run/kept.safetensors", "run/repaired.safetensors")
    assert "batchnorm" not in evaluation(capsys, "kept")


def test_a_training_without_an_epoch_saves_what_evaluate_measures(folder, capsys):
    measured = evaluation(capsys, "pruned")
    capsys.readouterr()
    call("posttrain", "--epochs", 0, "--json")
    assert json.loads(capsys.readouterr().out)["metrics"]["batchnorm_samples"] == 1000
    saved = evaluation(capsys, "final")
    assert saved["batchnorm"] == {"samples": 1000, "saved": True}
    assert (saved["loss"], saved["per_class"]) == (measured["loss"], measured["per_class"])
    pruned, final = (
        load_checkpoint(folder / "run/pruned.safetensors"),
        load_checkpoint(folder / "run/final.safetensors"),
    )
    changed = {n for n, value in final.weights.items() if not torch.equal(value, pruned.weights[n])}
    assert changed == set(statistics("run/pruned.safetensors"))
    bytes_before = (folder / "run/final.safetensors").read_bytes()
    call("posttrain", "--epochs", 0, "--overwrite")
    assert (folder / "run/final.safetensors").read_bytes() == bytes_before
    call("posttrain", "--epochs", 0, "--reestimate-batchnorm", 0, code=5)
    call("posttrain", "--epochs", 0, "--reestimate-batchnorm", 0, "--overwrite")
    assert same("run/final.safetensors", "run/pruned.safetensors")
    assert evaluation(capsys, "final")["batchnorm"]["saved"] is False


def test_a_mask_that_changes_nothing_changes_no_statistics(folder, capsys):
    prune = ["apply-mask", "--criterion", "magnitude", "--checkpoint"]
    call("posttrain", "--epochs", 1)
    call(*prune, "run/final.safetensors", "--sparsity", 0.1, "--output", "run/again.safetensors")
    assert "batchnorm" not in evaluation(capsys, "again")
    call(*prune, "run/pruned.safetensors", "--sparsity", 0.1, "--output", "run/twice.safetensors")
    assert evaluation(capsys, "twice")["batchnorm"]["samples"] == 1000
    call(*prune, "run/final.safetensors", "--sparsity", 0.1, "--reset-batchnorm", "--output", "run/reset.safetensors")
    assert evaluation(capsys, "reset")["batchnorm"]["samples"] == 1000


def test_an_export_of_other_statistics_than_were_measured_is_warned_of(folder, capsys):
    call("posttrain", "--epochs", 0)
    for name, warned in (("pruned", True), ("final", False)):
        capsys.readouterr()
        path = ["--checkpoint", f"run/{name}.safetensors", "--output", f"{name}.pt2"]
        call("export", "--format", "safetensors", *path, "--json")
        warnings = json.loads(capsys.readouterr().out)["warnings"]
        assert any("posttrain --epochs 0" in warning for warning in warnings) == warned


RUN = ("--model", "whitened:net", "--pretrain-epochs", 1, "--train-epochs", 0, "--posttrain-epochs", 0)


def test_a_run_without_training_ends_with_them(folder, capsys):
    call(
        "run", *RUN, "--criterion", "magnitude", "--iterations", 2, "--schedule", "one-shot", "--run", "whole", "--json"
    )
    assert json.loads(capsys.readouterr().out)["metrics"]["evaluation"]["batchnorm"] == {"samples": 1000, "saved": True}
    # The second mask prunes nothing more, and what is between the two has adapted nothing.
    assert same("whole/iteration-001/pruned.safetensors", "whole/pretrained.safetensors")
    assert not same("whole/final.safetensors", "whole/pretrained.safetensors")


def test_a_sweep_measures_what_a_run_does(folder, capsys):
    shared = [*RUN, "--criterion", "obd", "--record-epochs", 1, "--iterations", 1, "--sparsity", 0.85]
    call("run", *shared, "--run", "whole", "--json")
    measured = json.loads(capsys.readouterr().out)["metrics"]["evaluation"]
    assert measured["batchnorm"]["samples"] == 1000
    call("sweep", *shared, "--seeds", 1, "--run", "grid")
    line = json.loads((folder / "grid/sweep/results.jsonl").read_text().splitlines()[0])
    assert line["loss"] == measured["loss"]


def test_a_run_with_repair_keeps_the_dense_statistics(folder, capsys):
    options = ["--criterion", "magnitude", "--iterations", 1, "--repair", "--sparsity", 0.85]
    call("run", *RUN, *options, "--run", "mended", "--json")
    assert "batchnorm" not in json.loads(capsys.readouterr().out)["metrics"]["evaluation"]
    assert same("mended/final.safetensors", "mended/pretrained.safetensors")


@pytest.mark.parametrize("command", ["evaluate", "posttrain", "run"])
@pytest.mark.parametrize("count", ["1", "-1"])
def test_one_sample_is_none(folder, capsys, command, count):
    capsys.readouterr()
    call(command, "--reestimate-batchnorm", count, code=2)
    assert "0, or at least 2" in capsys.readouterr().err
