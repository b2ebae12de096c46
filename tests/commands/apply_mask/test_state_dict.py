"""``apply-mask --weights``: from a state dict and a store to a masked one, without its network and without data."""

import copy
import json

import pytest
import torch
from commands import call, call_json
from safetensors.torch import load_file
from torch import nn

import causalprune as cp

LABELS = torch.arange(24) % 3


def network():
    return nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    torch.manual_seed(0)
    model, inputs = network(), torch.randn(24, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss():
        return nn.functional.cross_entropy(model(inputs), LABELS)

    with cp.Recorder(model, optimizer, folder / "trajectory.zarr") as recorder:
        for _ in range(12):
            value = loss()
            optimizer.zero_grad()
            value.backward()
            recorder.step(value, loss)
    cp.fit(folder / "trajectory.zarr")
    torch.save(model.state_dict(), folder / "model.pt")
    return folder, model


@pytest.fixture
def prune(made, tmp_path, capsys):
    folder, _ = made

    def run(*options, code=0, weights=folder / "model.pt"):
        arguments = [
            "--weights",
            weights,
            "--store",
            folder / "trajectory.zarr",
            "--output",
            tmp_path / "out.safetensors",
        ]
        if code == 0:
            return call_json(capsys, "apply-mask", *arguments, *options)
        capsys.readouterr()
        assert call("apply-mask", *arguments, "--quiet", *options) == code
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("criterion", ["effect", "magnitude", "obd", "chita", "obs"])
def test_it_is_what_the_library_makes_of_the_network(prune, made, tmp_path, criterion):
    folder, model = made
    model = copy.deepcopy(model)
    mask = cp.prune(model, folder / "trajectory.zarr", sparsity=0.6, criterion=criterion)
    metrics = prune("--sparsity", "0.6", "--criterion", criterion)["metrics"]
    twin = network()
    twin.load_state_dict(load_file(tmp_path / "out.safetensors"), strict=True)
    assert all(map(torch.equal, twin.state_dict().values(), model.state_dict().values()))
    assert torch.equal(cp.Mask.load(tmp_path / "out.mask.safetensors").keep, mask.keep)
    assert metrics["sparsity"] == pytest.approx(mask.sparsity)
    assert [layer["kept"] for layer in metrics["layers"]] == [layer.kept for layer in mask.per_layer()]


def test_dead_ends_that_only_the_network_would_show_are_said_to_be_ranked_by_their_scores(prune):
    for overwrite in ((), ("--overwrite",), ()):
        result = prune("--sparsity", "0.6", *overwrite)
        assert "beside --weights the network isn't known" in result["metrics"]["dead_ends_unknown"]
        assert result["warnings"] == []
    for options in (("--dead-ends", "scored"), ("--criterion", "magnitude"), ("--granularity", "layer")):
        assert prune("--sparsity", "0.6", "--overwrite", *options)["metrics"]["dead_ends_unknown"] == ""


def test_the_files_have_names_of_their_own_beside_the_weights(made, tmp_path, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pth.tar").write_bytes((folder / "model.pt").read_bytes())
    options = ["--weights", "model.pth.tar", "--store", folder / "trajectory.zarr", "--sparsity", "0.5", "--quiet"]
    assert call("apply-mask", *options) == 0
    names = ["model.pruned.mask.safetensors", "model.pruned.safetensors", "model.pruned.safetensors.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [*names, "model.pth.tar"]
    assert json.loads((tmp_path / names[2]).read_text())["stage"] == "apply-mask"


def test_the_same_work_is_done_once_and_other_work_replaces_nothing(prune, tmp_path):
    first = prune("--sparsity", "0.5")
    written = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    again = prune("--sparsity", "0.5")
    assert (first["already_done"], again["already_done"]) == (False, True)
    assert again["metrics"] == first["metrics"]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == written
    assert "pass --overwrite to replace it" in prune("--sparsity", "0.7", code=5)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == written
    (tmp_path / "out.mask.safetensors").unlink()
    prune("--sparsity", "0.5")
    assert (tmp_path / "out.mask.safetensors").read_bytes() == written["out.mask.safetensors"]
    assert prune("--sparsity", "0.7", "--overwrite")["metrics"]["sparsity"] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (
            ["--criterion", "wanda"],
            2,
            "--criterion: expected one that measures no layers, beside --weights, found wanda",
        ),
        (["--granularity", "neuron"], 2, "--granularity: expected parameter or layer beside --weights"),
        (["--checkpoint", "x.safetensors"], 2, "--checkpoint: expected none beside --weights"),
        (["--rewind", "pretrained"], 2, "--rewind: expected none beside --weights"),
        (["--keep", "conv1"], 2, "--keep: expected a pattern that matches one of 0, 3, found 'conv1'"),
        (["--fit", "none"], 5, "expected a fit named none, found default"),
        (["--output", "x.pt"], 2, "--output: expected a file name that ends in .safetensors"),
        (["--weights", "missing.pt"], 3, "missing.pt: expected a file of weights, found nothing"),
        (["--weights", "weights.npz"], 2, "--weights: expected a .safetensors file, or one of torch.save"),
    ],
)
def test_what_it_cannot_do_is_one_line(prune, options, code, said):
    error = prune("--sparsity", "0.5", *options, code=code)
    assert said in error
    assert error.count("\n") == 1


def test_a_store_is_needed(made, capsys):
    folder, _ = made
    assert call("apply-mask", "--weights", folder / "model.pt", "--sparsity", "0.5", "--quiet") == 2
    assert "--weights: expected --store beside it, the recording of its loop, found none" in capsys.readouterr().err


def test_weights_that_were_trained_on_are_refused_unless_allowed(prune, made, tmp_path):
    _, model = made
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["0.weight"] += 0.01
    torch.save(state, tmp_path / "later.pt")
    error = prune("--sparsity", "0.5", code=5, weights=tmp_path / "later.pt")
    assert (
        "started or ended with, found others; save the state dict right after the recording, or pass --allow" in error
    )
    done = prune("--sparsity", "0.5", "--allow-other-weights", weights=tmp_path / "later.pt")
    assert "is of other weights than" in done["warnings"][0]
    # What reads no recording needs none of these weights.
    prune("--sparsity", "0.5", "--criterion", "magnitude", "--overwrite", weights=tmp_path / "later.pt")
