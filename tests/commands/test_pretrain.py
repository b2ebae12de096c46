"""pretrain from existing weights, and what the network brings along."""

import json
import sys

import pytest
import torch
from causalprune_cli.main import main
from torch import nn
from torch.nn.utils import prune

from causalprune.models.checkpoint import load_checkpoint

DATA = ["--dataset", "breast-cancer"]
NETWORKS = """
import torch
from torch import nn

class Counting(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer, self.steps = nn.Linear(inputs, outputs), 0
    def forward(self, x):
        self.steps += self.training
        return self.layer(x)
    def get_extra_state(self):
        return {"steps": self.steps}
    def set_extra_state(self, state):
        self.steps = state["steps"]

class Unpooling(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer = nn.Linear(30, outputs)
    def forward(self, x):
        pooled, where = nn.functional.max_pool1d(x[:, None], 2, return_indices=True)
        return self.layer(nn.functional.max_unpool1d(pooled, where, 2)[:, 0])

class Large(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
    def forward(self, x):
        return self.layer(x) + (torch.empty(2**55).sum() if self.training else 0)

class Huge(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2**30, 2**30)

def mlp(input_shape, num_outputs):
    return nn.Sequential(nn.Linear(*input_shape, 8), nn.ReLU(), nn.Linear(8, num_outputs))

def counting(input_shape, num_outputs): return Counting(*input_shape, num_outputs)
def unpooling(input_shape, num_outputs): return Unpooling(num_outputs)
def large(input_shape, num_outputs): return Large(*input_shape, num_outputs)
def huge(input_shape, num_outputs): return Huge()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "brought.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield tmp_path
    torch.use_deterministic_algorithms(deterministic)
    sys.modules.pop("brought", None)


def call(*arguments):
    return main([*map(str, arguments), "--quiet"])


def pruned_by_torch(path):
    """A network that PyTorch's own tools pruned to a half, saved as its tutorial does."""
    model = nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 2))
    for layer in (model[0], model[2]):
        prune.l1_unstructured(layer, "weight", 0.5)
    torch.save({"epoch": 3, "model_state_dict": model.state_dict()}, path)
    return {f"{name}.weight": layer.weight_mask.bool() for name, layer in (("0", model[0]), ("2", model[2]))}


def test_what_another_tool_pruned_stays_pruned_through_all_stages(folder):
    masks = pruned_by_torch("pruned.pt")
    network = [*DATA, "--model", "brought:mlp"]
    assert call("pretrain", *network, "--init-from", "pruned.pt", "--epochs", "2") == 0
    assert call("record", "--steps", "12", "--trust-code") == 0
    assert call("fit-gamma") == 0
    assert call("apply-mask", "--sparsity", "0.8", "--trust-code") == 0
    assert call("posttrain", "--epochs", "1", "--trust-code") == 0
    for name, sparsity in (("pretrained", 0.5), ("recorded", 0.5), ("pruned", 0.8), ("final", 0.8)):
        checkpoint = load_checkpoint(folder / "run" / f"{name}.safetensors")
        assert checkpoint.info.sparsity == pytest.approx(sparsity, abs=0.01)
        for parameter, keep in masks.items():
            assert not (checkpoint.mask.tensors()[parameter] & ~keep).any()
            assert (checkpoint.weights[parameter][~keep] == 0).all()
            # The kept ones were trained.
            assert (checkpoint.weights[parameter] != 0).sum() == checkpoint.mask.tensors()[parameter].sum()


def test_a_checkpoint_of_ours_continues_with_its_mask(folder):
    assert call("pretrain", *DATA, "--model", "mlp", "--hidden", "8", "--epochs", "1") == 0
    prune = ["apply-mask", "--criterion", "magnitude", "--sparsity", "0.6"]
    assert call(*prune, "--checkpoint", "run/pretrained.safetensors") == 0
    start = ["pretrain", *DATA, "--model", "mlp", "--hidden", "8", "--init-from", "run/pruned.safetensors"]
    assert call(*start, "--epochs", "1", "--run", "next") == 0
    first, second = (
        load_checkpoint(folder / "run/pruned.safetensors"),
        load_checkpoint(folder / "next/pretrained.safetensors"),
    )
    assert torch.equal(first.mask.keep, second.mask.keep)
    # apply-mask neither goes back to a lower sparsity nor frees a weight.
    assert call(*prune[:-1], "0.3", "--checkpoint", "next/pretrained.safetensors", "--run", "next") == 0
    assert torch.equal(load_checkpoint(folder / "next/pruned.safetensors").mask.keep, first.mask.keep)


def test_options_of_the_file_need_the_file(folder, capsys):
    for option in (["--ignore", "fc.*"], ["--allow-mismatch"], ["--keep-zeros"], ["--key-map", "a=b"]):
        assert call("pretrain", *option) == 2
        assert f"{option[0]}: expected --init-from FILE beside it" in capsys.readouterr().err


def test_new_options_leave_the_identity_of_what_is_done(folder):
    from causalprune.config.pretrain import PretrainConfig

    fields = PretrainConfig().identity_fields()
    assert not {"ignore", "allow_mismatch", "keep_zeros"} & fields.keys()
    assert PretrainConfig(init_from="a.pt", keep_zeros=True).identity_fields()["keep_zeros"] is True


def test_an_extra_state_is_carried_and_resumed(folder, capsys):
    network = [*DATA, "--model", "brought:counting", "--batch-size", "100"]
    assert call("pretrain", *network, "--epochs", "3") == 0
    weights = load_checkpoint(folder / "run/pretrained.safetensors")
    best = weights.info.metrics["best_epoch"]
    said = bytes(weights.weights["_extra_state"].tolist())
    # 409 samples in batches of 100; the 9 left over are one more.
    assert json.loads(said.removeprefix(b"json:")) == {"steps": 5 * best}
    assert call("record", "--steps", "4", "--trust-code") == 0
    assert (
        call("apply-mask", "--criterion", "magnitude", "--sparsity", "0.5", "--rewind", "pretrained", "--trust-code")
        == 0
    )
    assert call("posttrain", "--epochs", "1", "--trust-code") == 0
    assert call("export", "--trust-code") == 0
    assert torch.load("run/exported.pt")["_extra_state"]["steps"] > 5 * best - 1


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (
            ["--model", "brought:unpooling", "--deterministic"],
            2,
            "--deterministic: expected operations with a deterministic",
        ),
        (
            ["--model", "brought:large"],
            6,
            "memory: expected 144115188075855872 bytes more, found too little; use a smaller",
        ),
        (["--model", "brought:huge"], 6, "memory: expected 4611686018427387904 bytes more"),
    ],
)
def test_what_the_machine_lacks_is_said_in_a_line(folder, capsys, options, code, says):
    assert call("pretrain", *DATA, *options, "--epochs", "1") == code
    error = capsys.readouterr().err
    assert error.startswith(f"causalprune: {says}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("slow", [True, False])
def test_bfloat16_without_instructions_for_it_is_a_warning(slow, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "amx_bf16": not slow})
    options = [*DATA, "--model", "mlp", "--hidden", "4", "--epochs", "1", "--amp", "bf16"]
    assert main(["pretrain", *options, "--run", str(tmp_path)]) == 0
    assert ("no bfloat16 instructions" in capsys.readouterr().err) == slow


def test_within_a_run_that_warning_names_what_was_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"})
    options = [*DATA, "--model", "mlp", "--hidden", "4", "--pretrain-epochs", "1", "--set", "pretrain.amp=bf16"]
    last = ["--criterion", "magnitude", "--iterations", "1", "--train-epochs", "0", "--posttrain-epochs", "0"]
    assert main(["run", *options, *last, "--run", str(tmp_path)]) == 0
    assert "several times slower with --set pretrain.amp=bf16" in capsys.readouterr().err
