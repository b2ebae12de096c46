"""Whole filters and channels by the command line: what is pruned can be removed, and no class loses its output."""

import pytest
import torch
from commands import QUICK_RUN, call, call_json

from causalprune.base.progress import Reporter
from causalprune.commands.apply_mask.command import apply_mask
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A LeNet that was trained a little."""
    run = tmp_path_factory.mktemp("dense")
    assert call("pretrain", "--epochs", "1", "--run", run, "--quiet") == 0
    return run / "pretrained.safetensors"


@pytest.mark.parametrize("granularity", ["filter", "neuron", "channel"])
def test_the_outputs_keep_their_weights(dense, tmp_path, capsys, granularity):
    pruned = tmp_path / "pruned.safetensors"
    options = ["--sparsity", "0.5", "--scope", "layer", "--granularity", granularity, "--criterion", "magnitude"]
    options += ["--checkpoint", dense, "--output", pruned, "--run", tmp_path]
    layers = call_json(capsys, "apply-mask", *options)["metrics"]["layers"]
    assert [layer["sparsity"] for layer in layers] == [0.5] * (len(layers) - 1) + [0.0]
    mask = load_checkpoint(pruned).mask.tensors()
    assert not any(keep.flatten(1).any(1).all() for keep in list(mask.values())[:-1])


def test_every_pruned_channel_can_be_removed(dense, tmp_path, capsys):
    pruned, exported = tmp_path / "pruned.safetensors", tmp_path / "exported.pt"
    options = ["--sparsity", "0.6", "--granularity", "channel", "--criterion", "magnitude", "--checkpoint", dense]
    call_json(capsys, "apply-mask", *options, "--output", pruned, "--run", tmp_path)
    options = ["--compact", "--checkpoint", pruned, "--output", exported, "--run", tmp_path]
    layers = call_json(capsys, "export", *options)["metrics"]["compact"]["layers"]
    assert any(layer["dead"] for layer in layers)
    # One of a layer's dead channels stays for the constants that the others put out.
    assert all(layer["removed"] == max(layer["dead"] - 1, 0) for layer in layers)
    weights = torch.load(exported, weights_only=True)
    assert [len(weights[layer["name"]]) for layer in layers] == [layer["units"] - layer["removed"] for layer in layers]


def test_run_prunes_channels_in_several_iterations(tmp_path, capsys):
    call_json(capsys, *QUICK_RUN, "--granularity", "channel", "--run", tmp_path / "run")
    checkpoint = load_checkpoint(tmp_path / "run/final.safetensors")
    for name, keep in checkpoint.mask.tensors().items():
        units = keep.flatten(1)
        assert torch.equal(units.any(1), units.all(1)), name


def test_a_network_of_outputs_only(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    (tmp_path / "linear.py").write_text("from torch import nn\ndef make(): return nn.Sequential(nn.Linear(30, 2))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    call_json(capsys, "pretrain", "--dataset", "breast-cancer", "--model", "linear:make", "--epochs", "0", "--run", run)
    for granularity in ("neuron", "channel"):
        options = ["--sparsity", "0.5", "--criterion", "magnitude", "--granularity", granularity, "--trust-code"]
        assert call("apply-mask", *options, "--checkpoint", run / "pretrained.safetensors", "--run", run) == 5
        assert f"a network with a {granularity} that can be pruned, found outputs only" in capsys.readouterr().err


class Listener(Reporter):
    """Keeps what a stage warns of."""

    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


@pytest.mark.parametrize(
    ("granularity", "sparsity", "far"), [("layer", 0.5, True), ("layer", 0.25, True), ("filter", 0.5, False)]
)
def test_a_sparsity_that_whole_groups_miss_is_said(dense, tmp_path, granularity, sparsity, far):
    listener = Listener()
    options = {"criterion": "magnitude", "granularity": granularity, "sparsity": sparsity, "checkpoint": dense}
    result = apply_mask(ApplyMaskConfig(run=tmp_path, output=tmp_path / "pruned.safetensors", **options), listener)
    said = [w for w in listener.warnings if "asked for" in w]
    assert (abs(result.sparsity - sparsity) > 0.01) == far
    expected = f"{result.sparsity:.2%} of the weights are pruned, where {sparsity:.2%} were asked for"
    assert [w.startswith(expected) for w in said] == [True] * far
