"""posttrain, from checkpoint to checkpoint: its defaults, and the dense network that it may train towards."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from causalprune_cli.main import main

from causalprune.base.json_files import sha256_file
from causalprune.commands._network import load_network
from causalprune.commands._plan import PipelinePlan
from causalprune.config.posttrain import PosttrainConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.run import RunConfig
from causalprune.data.datasets import load_data
from causalprune.models.checkpoint import load_checkpoint, read_checkpoint_info
from causalprune.training import loop

EARLIER = Path(__file__).parents[1] / "compatibility/files/run"


def call(*arguments):
    return main([*map(str, arguments), "--quiet"])


def final(run):
    return load_checkpoint(run / "final.safetensors")


def divergence(run, checkpoint):
    """Mean KL divergence, at temperature 2, of a network's outputs on the test images from the dense one's."""
    data = load_data(checkpoint.info.data)
    outputs = []
    for each in (load_checkpoint(run / "pretrained.safetensors"), checkpoint):
        model, _ = load_network(each, run, torch.device("cpu"), trust_code=False)
        model.eval()
        outputs.append(torch.log_softmax(model(data.normalization(data.test.inputs)) / 2, 1))
    return torch.nn.functional.kl_div(outputs[1], outputs[0], reduction="batchmean", log_target=True).item()


def test_a_distilled_network_is_nearer_to_the_dense_one(run):
    assert call("posttrain", "--epochs", 3, "--run", run) == 0
    plain = final(run)
    assert set(plain.info.inputs) == {"checkpoint"}
    assert call("posttrain", "--epochs", 3, "--distill", 1, "--run", run) == 5
    assert call("posttrain", "--epochs", 3, "--distill", 1, "--run", run, "--overwrite") == 0
    distilled = final(run)
    assert distilled.info.inputs["dense"] == sha256_file(run / "pretrained.safetensors")
    assert divergence(run, distilled) < 0.8 * divergence(run, plain)
    for name, keep in distilled.mask.tensors().items():
        assert not distilled.weights[name][~keep].any()


def test_a_dense_network_can_be_distilled_into_itself(run):
    itself = ["--checkpoint", run / "pretrained.safetensors", "--distill", 0.5]
    assert call("posttrain", "--epochs", 1, *itself, "--run", run) == 0
    assert final(run).info.sparsity == 0


@pytest.mark.parametrize("steps", [2, 60])
def test_a_distillation_goes_on_after_a_signal_and_ends_with_the_same_bytes(run, tmp_path, monkeypatch, steps):
    whole = shutil.copytree(run, tmp_path / "whole")
    options = ["--epochs", 3, "--distill", 0.5]
    assert call("posttrain", *options, "--run", whole) == 0
    taken = []

    def interrupted(*arguments):
        taken.append(arguments)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        original(*arguments)

    original = loop.scaled_step
    monkeypatch.setattr(loop, "scaled_step", interrupted)
    assert call("posttrain", *options, "--run", run) == 75
    assert call("posttrain", *options, "--run", run) == 0
    assert (run / "final.safetensors").read_bytes() == (whole / "final.safetensors").read_bytes()
    assert not list(run.glob("*.progress*"))


def test_no_distillation_reads_no_dense_network(run):
    (run / "pretrained.safetensors").rename(run / "gone.safetensors")
    assert call("posttrain", "--epochs", 1, "--run", run) == 0
    without = final(run)
    assert "distill" not in without.info.config
    assert call("posttrain", "--epochs", 1, "--distill", 0, "--run", run) == 0
    assert final(run).sha256 == without.sha256
    assert call("posttrain", "--epochs", 1, "--distill", 0.5, "--run", run, "--overwrite") == 3


def test_a_pretrained_network_takes_any_dense_one_of_its_model_and_data(run, tmp_path):
    """It may have taken over foreign weights, whose dense network only the user knows."""
    options = ["--model", "mlp", "--hidden", "30,20", "--dataset", "digits", "--seed", 1, "--epochs", 0]
    assert call("pretrain", *options, "--run", tmp_path / "other") == 0
    start = ["--checkpoint", run / "pretrained.safetensors", "--dense", tmp_path / "other/pretrained.safetensors"]
    assert call("posttrain", "--epochs", 1, "--distill", 0.5, *start, "--run", run) == 0
    dense = sha256_file(tmp_path / "other/pretrained.safetensors")
    assert final(run).info.inputs["dense"] == dense


@pytest.mark.parametrize(
    "other", [["--hidden", "12"], ["--hidden", "30,20", "--seed", "1"], ["--hidden", "4", "--dataset", "breast-cancer"]]
)
def test_another_dense_network_is_refused(run, tmp_path, capsys, other):
    assert call("pretrain", "--model", "mlp", *other, "--epochs", 0, "--run", tmp_path / "other") == 0
    dense = ["--dense", tmp_path / "other/pretrained.safetensors"]
    assert call("posttrain", "--epochs", 1, "--distill", 0.5, *dense, "--run", run) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--dense" in error
    assert not (run / "final.safetensors").exists()


def test_a_dense_network_of_other_data_is_refused_where_ancestors_are_unknown(run, tmp_path, capsys):
    """A checkpoint of version 0.1 beside a network of the same shape."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    # As many features and classes as breast-cancer has.
    inputs, labels = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32), np.arange(40) % 2
    np.savez(tmp_path / "d.npz", x_train=inputs, y_train=labels, x_test=inputs, y_test=labels)
    data = ["--dataset", f"npz:{tmp_path}/d.npz", "--model", "mlp", "--hidden", "8,4"]
    assert call("pretrain", *data, "--epochs", 0, "--run", tmp_path / "other") == 0
    where = ["--run", tmp_path / "earlier", "--output", tmp_path / "out.safetensors", "--epochs", 1, "--distill", 0.5]
    assert not read_checkpoint_info(tmp_path / "earlier/pruned.safetensors").ancestors
    assert call("posttrain", *where, "--dense", tmp_path / "other/pretrained.safetensors") == 5
    assert "other data" in capsys.readouterr().err
    assert call("posttrain", *where) == 0


@pytest.mark.parametrize(
    ("option", "value"), [("--distill", "1.1"), ("--distill", "-0.1"), ("--distill", "nan"), ("--warmup", "1"),
                          ("--warmup", "-0.1"), ("--clip-norm", "-1"), ("--clip-norm", "inf")]
)  # fmt: skip
def test_what_can_not_be_is_refused(run, capsys, option, value):
    assert call("posttrain", f"{option}={value}", "--run", run) == 2
    error = capsys.readouterr().err
    assert option in error.split("expected")[0]
    assert error.count("\n") == 1


def test_what_is_off_is_left_out_of_the_identity(tmp_path):
    off = {"warmup": 0, "clip_norm": 0, "distill": 0, "channels_last": False}
    assert not off.keys() & PretrainConfig().identity_fields().keys()
    assert not off.keys() & PosttrainConfig(**off).identity_fields().keys()
    assert "distill" not in RunConfig().identity_fields()
    assert RunConfig(distill=0.5).identity_fields()["distill"] == 0.5
    assert PretrainConfig(channels_last=True).identity_fields()["channels_last"] is True
    fields = PosttrainConfig().identity_fields()
    assert (fields["warmup"], fields["clip_norm"]) == (0.1, 1.0)
    # What version 0.1 made is what these options say now.
    shutil.copytree(EARLIER, tmp_path / "run")
    as_then = ["--epochs", 2, "--lr", 0.01, "--run", tmp_path / "run"]
    before = (tmp_path / "run/final.safetensors").read_bytes()
    assert call("posttrain", *as_then, "--warmup", 0, "--clip-norm", 0) == 0
    assert call("posttrain", *as_then) == 5
    assert (tmp_path / "run/final.safetensors").read_bytes() == before


def test_run_distills_in_the_last_training_and_says_so_only_then():
    plan = PipelinePlan(RunConfig(distill=0.5, run="r"))
    assert plan.posttrain().distill == 0.5
    assert str(plan.posttrain().dense) == "r/pretrained.safetensors"
    assert plan.iteration(1).train.distill == 0
    assert plan.iteration(1).train.clip_norm > 0
    config = RunConfig(set=("train.distill=0.25",), run="r")
    assert PipelinePlan(config).iteration(1).train.distill == 0.25
    assert str(PipelinePlan(config).iteration(1).train.dense) == "r/pretrained.safetensors"


def test_a_sweep_distills_from_the_dense_network(tmp_path):
    tiny = ["--dataset", "breast-cancer", "--hidden", "4", "--pretrain-epochs", 1, "--record-epochs", 1]
    options = [*tiny, "--sparsity", "0.5", "--criterion", "magnitude", "--seeds", 1, "--posttrain-epochs", 1]
    assert call("sweep", *options, "--vary", "posttrain.distill=0,0.5", "--keep-networks", "--run", tmp_path) == 0
    inputs = [read_checkpoint_info(path).inputs for path in tmp_path.rglob("final.safetensors")]
    (dense,) = (sha256_file(path) for path in tmp_path.rglob("pretrained.safetensors"))
    assert sorted(i.get("dense", "") for i in inputs) == ["", dense]
