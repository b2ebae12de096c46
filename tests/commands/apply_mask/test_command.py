"""apply-mask leaves alone what wasn't trained, and says what the fit and the recording say about the rest."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from commands import call

from causalprune.models.checkpoint import load_checkpoint

NETWORK = """
from torch import nn

class Partly(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.first, self.frozen, self.unused = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, outputs)
        self.frozen.requires_grad_(False)
        nn.init.constant_(self.first.bias[:2], -1000.0)

    def forward(self, images):
        return self.head(self.frozen(self.first(images.flatten(1)).relu()).relu())

def net(input_shape, num_outputs):
    return Partly(num_outputs)
"""

TRAINED = 64 * 8 + 8 * 10
"""Weights of the first and the last layer; two units of the first one never get a gradient."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a recording of a network with a frozen layer, an unused one and two dead units, and its fit."""
    folder = tmp_path_factory.mktemp("partly_frozen")
    (folder / "partly_frozen.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for command in (
            ["pretrain", "--model", "partly_frozen:net", "--epochs", "1"],
            ["record", "--steps", "12", "--trust-code"],
            ["fit-gamma"],
        ):
            assert call(*command, "--run", folder / "run", "--quiet") == 0
        yield folder / "run"
    sys.modules.pop("partly_frozen", None)


@pytest.fixture
def prune(made, tmp_path, capsys):
    """Prune a copy of the run; returns the metrics, and what was said."""
    run = shutil.copytree(made, tmp_path / "run")

    def run_it(*options):
        capsys.readouterr()
        assert call("apply-mask", *options, "--run", run, "--trust-code", "--json") == 0
        said = capsys.readouterr()
        return json.loads(said.out)["metrics"], said.err

    return run_it


def test_an_exponent_is_part_of_the_work_unless_it_is_1(prune, made, tmp_path):
    masks = []
    said = {"magnitude": None, "effect": None, "effect ": "0.125", "effect  ": "1", "effect   ": "0", "obd": None}
    for name, exponent in said.items():
        options = [name.strip(), *(["--exponent", exponent] if exponent else [])]
        output = tmp_path / f"{len(masks)}.safetensors"
        prune("--sparsity", "0.5", "--output", output, "--criterion", *options)
        masks.append(load_checkpoint(output))
    magnitude, default, written, one, zero, _ = masks
    assert torch.equal(magnitude.mask.keep, zero.mask.keep)
    assert not torch.equal(magnitude.mask.keep, one.mask.keep)
    assert default.info.config == written.info.config
    assert [network.info.config.get("exponent") for network in masks] == [None, 0.125, 0.125, None, 0, None]
    # As an earlier version wrote it, when 1 was what effect had, but for dead ends.
    assert one.info.config == {**magnitude.info.config, "criterion": "effect", "dead_ends": "first"}


def shares_kept(metrics):
    return {layer["name"]: layer["kept"] / layer["total"] for layer in metrics["layers"]}


@pytest.mark.parametrize(
    "criterion", ["effect", "gamma", "magnitude", "random", "fisher", "obd", "chita", "obs", "lamp"]
)
def test_what_was_not_trained_is_left_alone_whatever_the_criterion(prune, made, tmp_path, criterion):
    metrics, said = prune("--criterion", criterion, "--sparsity", "0.5")
    kept = shares_kept(metrics)
    assert (kept["frozen.weight"], kept["unused.weight"]) == (1, 1)
    assert metrics["frozen"] == ["frozen.weight", "unused.weight"]
    assert (metrics["candidates"], metrics["sparsity_candidates"]) == (TRAINED, 0.5)
    (line,) = [line for line in said.splitlines() if "frozen.weight" in line]
    assert "unused.weight, 128 weights (--prune-frozen includes them)" in line
    if criterion in ("chita", "obs"):
        before, after = (
            load_checkpoint(path).weights
            for path in (made / "recorded.safetensors", tmp_path / "run" / "pruned.safetensors")
        )
        assert torch.equal(before["frozen.weight"], after["frozen.weight"])


def test_they_can_be_included(prune):
    metrics, said = prune("--sparsity", "0.5", "--prune-frozen", "--dead-ends", "scored")
    assert shares_kept(metrics)["unused.weight"] < 1
    assert (metrics["frozen"], metrics["candidates"]) == ([], TRAINED + 128)
    assert "--prune-frozen" not in said


@pytest.mark.parametrize("criterion", ["effect", "fisher"])
def test_weights_whose_gradient_is_zero_stay_candidates_and_are_counted(prune, made, criterion):
    metrics, _ = prune("--criterion", criterion, "--sparsity", "0.5")
    still = ~zarr.open_group(made / "trajectory.zarr", mode="r")["recordings/000/delta"][:].any(0)
    # Those of the two dead units, and no layer's that was left alone.
    assert still[: 2 * 64].all()
    assert metrics["unmoved"] == np.count_nonzero(still) - 128
    assert shares_kept(metrics)["first.weight"] < 1


def test_zero_says_that_the_lasso_keeps_at_most_one_weight_per_row(prune):
    metrics, _ = prune("--zero")
    lasso = metrics["lasso"]
    assert (lasso["rows"], lasso["most"], lasso["what"]) == (12, 12, "weights")
    assert 0 < lasso["nonzero"] <= 12
    guarded = len(metrics["rescued"])
    kept = metrics["candidates"] * (1 - metrics["sparsity_candidates"])
    assert kept == pytest.approx(lasso["nonzero"] + guarded)


def test_a_finished_mask_says_the_same_again(prune):
    first, _ = prune("--zero")
    again, _ = prune("--zero")
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_channels_can_be_pruned_without_the_data_but_not_be_removed(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch_pruning")
    monkeypatch.chdir(tmp_path)
    labels = np.arange(90) % 3
    np.savez("rows.npz", x=np.random.default_rng(0).normal(size=(90, 5)) + labels[:, None], y=labels)
    checkpoint = ["--checkpoint", "run/pretrained.safetensors", "--quiet"]
    assert (
        call("pretrain", "--dataset", "npz:rows.npz", "--model", "mlp", "--hidden", "6,4", "--quiet", "--epochs", "1")
        == 0
    )
    Path("rows.npz").rename("gone.npz")
    channels = ["--criterion", "magnitude", "--granularity", "channel", "--sparsity", "0.5"]
    assert call("apply-mask", *channels, *checkpoint) == 0
    assert call("export", "--compact", "--checkpoint", "run/pruned.safetensors", "--quiet") == 3
    assert "rows.npz" in capsys.readouterr().err
    Path("gone.npz").rename("rows.npz")
    assert call("export", "--compact", "--checkpoint", "run/pruned.safetensors", "--quiet") == 0


def test_a_signal_ends_a_mask_at_once_because_there_is_no_state_to_save(made, tmp_path, monkeypatch):
    run = shutil.copytree(made, tmp_path / "run")

    def choose(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the mask went on")

    monkeypatch.setattr("causalprune.commands.apply_mask.command.choose_weights", choose)
    assert call("apply-mask", "--sparsity", "0.5", "--run", run, "--trust-code") == 76
    assert not (run / "pruned.safetensors").exists()
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["event"] == "interrupted"
