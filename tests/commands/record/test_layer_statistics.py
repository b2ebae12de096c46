"""record --layer-statistics: kept as measured directly, found by the weights that they are of, used without data."""

import json
import os
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from commands import artefact_hashes, call, call_json
from sklearn.datasets import load_digits

from causalprune.commands import repair as repair_command
from causalprune.commands._network import load_its_data, load_network
from causalprune.commands.apply_mask import command as mask_command
from causalprune.commands.layer_statistics import measuring
from causalprune.commands.record.loop import RecordLoop
from causalprune.models.checkpoint import load_checkpoint
from causalprune.pruning.layer_statistics import layer_statistics, pack
from causalprune.trajectory import Store
from causalprune.trajectory.storage.disk import DiskLocation

NETWORK = """
from torch import nn

def net(input_shape, num_outputs):
    first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Dropout())
    return nn.Sequential(first, second, nn.Linear(32, num_outputs))
"""
"""With batch normalization, dropout, a grouped convolution, and layers with and without a bias."""

RECORD = ["record", "--steps", "8", "--trust-code", "--checkpoint-every", "never"]
KEEP = [*RECORD, "--layer-statistics", "--samples", "600"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    (folder / "small_network.py").write_text(NETWORK)
    digits = load_digits()
    np.savez(folder / "digits.npz", x=digits.images[:, None].astype(np.float32), y=digits.target)
    data = ["--dataset", f"npz:{folder / 'digits.npz'}", "--model", "small_network:net", "--trust-code"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        assert call("pretrain", *data, "--epochs", "4", "--run", folder / "run", "--quiet") == 0
        yield folder / "run"
    sys.modules.pop("small_network", None)


@pytest.fixture(scope="module")
def recorded(pretrained, tmp_path_factory):
    run = shutil.copytree(pretrained, tmp_path_factory.mktemp("recorded") / "run")
    assert call(*KEEP, "--run", run, "--quiet") == 0
    return run


@pytest.fixture
def run(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "run")


@pytest.fixture
def without_data(pretrained):
    """No data set: its file is away."""
    data = pretrained.parent / "digits.npz"
    aside = data.rename(data.with_suffix(".away"))
    yield
    aside.rename(data)


@pytest.fixture
def unmeasured(monkeypatch):
    """Nothing is measured on samples."""

    def measure(*args):
        raise AssertionError("measured")

    monkeypatch.setattr(mask_command, "measured_layers", measure)


def kept(run):
    return Store.open(run / "trajectory.zarr").recording().read_layer_statistics()


def mask(run, capsys, *options, criterion="surgeon", sparsity=0.6):
    arguments = ["--criterion", criterion, "--sparsity", sparsity, "--trust-code", "--overwrite", *options]
    result = call_json(capsys, "apply-mask", *arguments, "--run", run)
    return result, load_checkpoint(run / "pruned.safetensors")


def test_what_is_kept_is_what_one_measures_on_the_recorded_weights(run):
    path = run / "recorded.safetensors"
    network = load_checkpoint(path)
    data = load_its_data(network, path, data_root="", trust_code=True)
    model, whole = load_network(network, path, torch.device("cpu"), trust_code=True)
    inputs = measuring.training_inputs(data, torch.device("cpu"), count=600, batch_size=500, seed=0, num_workers=0)
    arrays, layers = pack(layer_statistics(model, whole.index, inputs, data.task.drawn_loss))
    found = kept(run)
    assert {name: values.tobytes() for name, values in found.arrays.items()} == {
        name: values.tobytes() for name, values in arrays.items()
    }
    assert found.attributes == {
        "weights": network.network_digest,
        "data": data.fingerprint,
        "samples": 600,
        "requested": 600,
        "seed": 0,
        "smoothing": 0.1,
        "layers": layers,
    }


def test_the_rows_and_the_weights_are_those_of_a_recording_without(run, pretrained, tmp_path):
    plain = shutil.copytree(pretrained, tmp_path / "plain")
    assert call(*RECORD, "--run", plain, "--quiet") == 0
    for file in ("recordings/000/delta/c.0.0", "recordings/000/steps/c.0.0"):
        assert (run / "trajectory.zarr" / file).read_bytes() == (plain / "trajectory.zarr" / file).read_bytes()
    one, other = (load_checkpoint(folder / "recorded.safetensors") for folder in (run, plain))
    assert one.info.digest == other.info.digest
    assert kept(plain) is None


def test_a_dry_run_predicts_the_bytes_before_compression(pretrained, run, tmp_path, capsys):
    fresh = shutil.copytree(pretrained, tmp_path / "fresh")
    predicted = call_json(capsys, *KEEP, "--dry-run", "--run", fresh)["metrics"]["statistics_bytes"]
    assert not (fresh / "trajectory.zarr").exists()
    assert predicted == sum(values.nbytes for values in kept(run).arrays.values())
    stored = call_json(capsys, *KEEP, "--run", run)["metrics"]["statistics_bytes"]
    assert predicted / 2 < stored < 1.1 * predicted


def test_a_disk_without_room_for_them_is_refused_before_the_first_step(pretrained, tmp_path, capsys, monkeypatch):
    fresh = shutil.copytree(pretrained, tmp_path / "fresh")
    metrics = call_json(capsys, *KEEP, "--dry-run", "--run", fresh)["metrics"]
    free = metrics["stored_bytes"] + metrics["statistics_bytes"] // 2
    monkeypatch.setattr(DiskLocation, "free_bytes", lambda self: free)
    assert call(*KEEP, "--run", fresh, "--quiet") == 6
    assert "for the layers' statistics" in capsys.readouterr().err
    assert call(*RECORD, "--run", fresh, "--quiet") == 0


HALF_USED = """
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.scale = nn.Linear(64, 10), nn.Linear(5, 3), nn.Parameter(ones(10))

    def forward(self, x):
        return {outputs}

def net(input_shape, num_outputs):
    return Net()
"""


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Make a network whose outputs are computed so, and pretrain it; the run."""

    def make(outputs):
        (tmp_path / "half_used.py").write_text(HALF_USED.format(outputs=outputs))
        monkeypatch.syspath_prepend(tmp_path)
        run = tmp_path / "run"
        named = ["--model", "half_used:net", "--epochs", "0", "--run", run, "--trust-code", "--quiet"]
        assert call("pretrain", *named) == 0
        return run

    yield make
    sys.modules.pop("half_used", None)


def test_a_layer_that_no_input_reaches_has_none(network):
    run = network("self.used(x.flatten(1)) * self.scale")
    assert call(*KEEP, "--run", run, "--quiet") == 0
    assert [layer["name"] for layer in kept(run).attributes["layers"]] == ["used.weight"]


def test_a_network_that_cannot_be_measured_is_refused_before_the_first_step(network, capsys):
    run = network("x.flatten(1)[:, :10] * self.scale")
    assert call(*KEEP, "--run", run, "--quiet") == 5
    assert "used.weight" in capsys.readouterr().err
    assert not (run / "trajectory.zarr").exists()


@pytest.mark.usefixtures("unmeasured", "without_data")
@pytest.mark.parametrize("criterion", ["surgeon", "wanda", "rank-sum"])
def test_a_mask_without_data(run, capsys, criterion):
    result, pruned = mask(run, capsys, criterion=criterion)
    assert result["metrics"]["layer_statistics"] == {"from": "store", "samples": 600}
    assert result["inputs"]["layer_statistics"] == kept(run).digest
    assert pruned.info.sparsity == pytest.approx(0.6, abs=1e-3)
    command = ["apply-mask", "--criterion", criterion, "--sparsity", "0.6", "--trust-code", "--run", run]
    assert call_json(capsys, *command)["already_done"]
    shutil.rmtree(run / "trajectory.zarr")
    assert call(*command, "--quiet") == 5
    assert "another input (layer_statistics)" in capsys.readouterr().err


@pytest.mark.parametrize("criterion", ["surgeon", "wanda", "rank-sum"])
def test_the_mask_is_that_of_statistics_measured_on_the_same_samples(run, capsys, criterion):
    _, from_store = mask(run, capsys, criterion=criterion)
    shutil.rmtree(run / "trajectory.zarr")
    result, from_samples = mask(run, capsys, "--samples", 600, criterion=criterion)
    assert result["metrics"]["layer_statistics"] == {"from": "samples", "samples": 600}
    # G is rounded to float32, which may change places next to the threshold.
    assert (from_store.mask.keep != from_samples.mask.keep).sum() <= 2


def test_statistics_of_other_weights_are_not_used_and_it_says_so(run, capsys):
    result, _ = mask(run, capsys, "--checkpoint", run / "pretrained.safetensors")
    assert result["metrics"]["layer_statistics"] == {"from": "samples", "samples": 1000}
    assert "layer_statistics" not in result["inputs"]
    (said,) = [warning for warning in result["warnings"] if "measured anew" in warning]
    assert "are of other weights" in said


def test_weights_that_only_differ_in_a_bias_are_other_weights(run, capsys):
    network = load_checkpoint(run / "recorded.safetensors")
    before = network.network_digest
    network.weights["1.0.bias"][0] += 1
    assert network.network_digest != before
    assert network.weights_digest == load_checkpoint(run / "recorded.safetensors").weights_digest


def test_another_number_of_samples_is_measured(run, capsys):
    for samples, place in ((50, "samples"), (600, "store")):
        result, _ = mask(run, capsys, "--samples", samples)
        assert result["metrics"]["layer_statistics"] == {"from": place, "samples": samples}
        assert not any("measured anew" in warning for warning in result["warnings"])


def test_a_damaged_array_is_named(run, capsys):
    chunk = run / "trajectory.zarr/recordings/000/layer_statistics/means/c.0"
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(data)
    for command in (["store", "verify"], ["apply-mask", "--criterion", "surgeon", "--sparsity", "0.5", "--trust-code"]):
        assert call(*command, "--run", run, "--quiet") == 4
        assert "layer_statistics/means" in capsys.readouterr().err


def test_info_says_what_is_kept(run, capsys):
    (recording,) = call_json(capsys, "info", run / "trajectory.zarr")["details"]["recordings"]
    found = recording["layer_statistics"]
    assert (found["samples"], found["seed"]) == (600, 0)
    assert found["weights"] == load_checkpoint(run / "recorded.safetensors").network_digest


def test_a_repair_without_data(run, capsys, without_data):
    mask(run, capsys, criterion="magnitude", sparsity=0.8)
    command = ["repair", "--from-statistics", "--trust-code", "--run", run]
    result = call_json(capsys, *command)
    assert result["metrics"]["samples"] == 600
    assert result["inputs"]["layer_statistics"] == kept(run).digest
    assert all(layer["after"] < layer["before"] for layer in result["metrics"]["layers"])
    pruned, repaired = (load_checkpoint(run / f"{name}.safetensors") for name in ("pruned", "repaired"))
    assert torch.equal(pruned.mask.keep, repaired.mask.keep)
    assert call_json(capsys, *command)["already_done"]


def test_a_repair_from_statistics_goes_on_after_a_signal_and_ends_with_the_same_bytes(run, capsys, monkeypatch):
    mask(run, capsys, criterion="magnitude", sparsity=0.8)
    command = ["repair", "--from-statistics", "--trust-code", "--run", run, "--quiet"]
    assert call(*command) == 0
    expected = (run / "repaired.safetensors").read_bytes()
    (run / "repaired.safetensors").unlink()
    original = repair_command.reconstruct_layers

    def interrupted(*arguments, **options):
        for layer in original(*arguments, **options):
            os.kill(os.getpid(), signal.SIGTERM)
            yield layer

    monkeypatch.setattr(repair_command, "reconstruct_layers", interrupted)
    assert [call(*command) for _ in range(3)] == [75, 75, 0]
    assert (run / "repaired.safetensors").read_bytes() == expected


def test_a_repair_of_another_network_than_was_measured_is_refused(run, pretrained, tmp_path, capsys):
    mask(run, capsys, criterion="magnitude")
    command = ["repair", "--from-statistics", "--trust-code", "--run", run]
    for more in (["--dense", run / "pretrained.safetensors"], ["--store", tmp_path / "none.zarr"]):
        capsys.readouterr()
        assert call(*command, *more, "--quiet") == 5
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "expected layer statistics of" in error
    assert not (run / "repaired.safetensors").exists()


def test_a_signal_while_they_are_measured_costs_no_step(pretrained, recorded, tmp_path, monkeypatch):
    fresh = shutil.copytree(pretrained, tmp_path / "fresh")
    original = measuring.training_inputs

    def interrupted(*arguments, **options):
        if options["count"] == 600:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "training_inputs", interrupted)
        assert call(*KEEP, "--run", fresh, "--quiet") == 75
    assert not (fresh / "recorded.safetensors").exists()
    steps = []
    run_loop = RecordLoop.run
    monkeypatch.setattr(RecordLoop, "run", lambda self, step, *rest: steps.append(step) or run_loop(self, step, *rest))
    assert call(*KEEP, "--run", fresh, "--quiet") == 0
    assert steps == [8]
    assert artefact_hashes(fresh) == artefact_hashes(recorded)
    assert not list(fresh.glob("*.progress*"))


def test_a_checkpoint_that_is_made_again_leaves_them_alone(run):
    before = artefact_hashes(run)
    inode = (run / "trajectory.zarr/recordings/000/layer_statistics/zarr.json").stat().st_ino
    (run / "recorded.safetensors").unlink()
    assert call(*KEEP, "--run", run, "--quiet") == 0
    assert artefact_hashes(run) == before
    assert (run / "trajectory.zarr/recordings/000/layer_statistics/zarr.json").stat().st_ino == inode


def test_they_are_part_of_the_work_and_their_samples_only_with_them(run, pretrained, tmp_path, capsys):
    assert call_json(capsys, *KEEP, "--run", run)["already_done"]
    assert call(*RECORD, "--run", run, "--quiet") == 5
    assert "(--layer-statistics → none, --samples 600 → 1000)" in capsys.readouterr().err
    plain = shutil.copytree(pretrained, tmp_path / "plain")
    assert call(*RECORD, "--run", plain, "--quiet") == 0
    assert call_json(capsys, *RECORD, "--samples", 77, "--run", plain)["already_done"]


@pytest.mark.usefixtures("unmeasured")
def test_a_run_measures_its_layers_once_and_repairs_without_samples(tmp_path, capsys, monkeypatch):
    calls = []
    original = measuring.layer_statistics
    monkeypatch.setattr(measuring, "layer_statistics", lambda *a, **o: calls.append(1) or original(*a, **o))
    tiny = ["--model", "mlp", "--hidden", "12", "--pretrain-epochs", "1", "--train-epochs", "0", "--record-epochs", "1"]
    tiny += ["--iterations", "2", "--posttrain-epochs", "0", "--criterion", "surgeon", "--repair", "--sparsity", "0.6"]
    settings = ["--set", "record.layer-statistics=true", "--set", "repair.from-statistics=true"]
    result = call_json(capsys, "run", *tiny, *settings, "--run", tmp_path / "run")
    # Once for the prediction and once at the end, in each iteration.
    assert len(calls) == 4
    for number in (0, 1):
        part = tmp_path / f"run/iteration-00{number}/results"
        made = [json.loads((part / f"{stage}.json").read_text()) for stage in ("apply-mask", "repair")]
        assert len({one["inputs"]["layer_statistics"] for one in made}) == 1
    assert result["metrics"]["iterations"][0]["rows"]


def test_a_run_that_repairs_from_statistics_has_to_keep_them(tmp_path, capsys):
    options = ["--repair", "--set", "repair.from-statistics=true"]
    assert call("run", *options, "--run", tmp_path / "run", "--quiet") == 2
    expected = "--set repair.from-statistics=true: expected a recording that keeps them, found none; pass --set record."
    assert capsys.readouterr().err == f"causalprune: {expected}layer-statistics=true as well\n"
