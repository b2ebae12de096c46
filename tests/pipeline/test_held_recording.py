"""Held recordings on the command line: made, stopped, described, fitted, pruned by, merged, refused."""

import shutil
import signal

import numpy as np
import pytest
import torch
from commands import artefact_hashes, call, call_json, finish, start
from torch import nn

from causalprune.base.paths import DEFAULT_FIT
from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.mask import Mask
from causalprune.pruning.criteria import load_criterion, read_inputs
from causalprune.pruning.gradients import measured_curvature
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "2"]
HOLD = ["record", "--hold", "--batch-size", "1", "--steps", "40"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("held") / "run"
    for command in (["pretrain", *TINY], HOLD, ["fit-gamma"]):
        assert call(*command, "--run", path, "--quiet") == 0
    return path


def test_the_recorded_weights_are_those_before(run):
    before, after = (load_checkpoint(run / f"{name}.safetensors").weights for name in ("pretrained", "recorded"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    reader = Store.open(run / "trajectory.zarr").recording()
    assert (reader.num_rows, reader.precision) == (40, "float64")
    first = reader.steps.lr * reader.steps.grad_norm**2
    # Samples that no unit responds to have no gradient.
    assert (first > 0).mean() > 0.9
    assert first[first > 0] == pytest.approx(3e-4 * reader.steps.loss_before[first > 0], rel=1e-5)


def test_batch_normalization_takes_single_samples(tmp_path, monkeypatch):
    """In evaluation mode: in training one value per channel has no variance."""
    (tmp_path / "normalized.py").write_text(
        "from torch import nn\n\n\n"
        "def network(input_shape, num_outputs):\n"
        "    return nn.Sequential(nn.Linear(30, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, num_outputs))\n"
    )
    network = ["--model", "normalized:network", "--dataset", "breast-cancer", "--epochs", "2"]
    where = ["--run", tmp_path / "run", "--quiet"]
    monkeypatch.syspath_prepend(tmp_path)
    assert call("pretrain", *network, *where) == 0
    assert call("record", "--batch-size", "1", "--steps", "5", "--trust-code", *where) == 2
    assert call(*HOLD, "--trust-code", *where) == 0
    before, after = (load_checkpoint(tmp_path / f"run/{n}.safetensors").weights for n in ("pretrained", "recorded"))
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_recording_resumes_to_the_same_bytes(run, tmp_path, number):
    start_from = ["--checkpoint", run / "pretrained.safetensors"]
    command = ["record", "--hold", "--batch-size", "1", "--steps", "600", "--checkpoint-every", "50steps", *start_from]
    stage = start(*command, cwd=tmp_path)
    # Until some rows are committed, but not all.
    log = tmp_path / "run/trajectory.zarr/recordings/000/delta/commits.log"
    while stage.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 2):
        pass
    stage.send_signal(number)
    ended, error = finish(stage)
    assert ended in ({75, 0} if number == signal.SIGTERM else {-signal.SIGKILL, 0}), error
    for path in (tmp_path / "run", tmp_path / "quiet"):
        assert call(*command, "--run", path, "--quiet") == 0
    assert artefact_hashes(tmp_path / "run") == artefact_hashes(tmp_path / "quiet")


def test_a_missing_checkpoint_is_made_again_by_the_same_steps(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "recorded.safetensors").unlink()
    assert call(*HOLD, "--run", copied, "--quiet") == 0
    assert artefact_hashes(copied) == artefact_hashes(run)


def test_info_and_diagnose_show_the_measured_curvature(run, tmp_path, capsys):
    reader = Store.open(run / "trajectory.zarr").recording()
    found = measured_curvature(reader.steps)
    (described,) = call_json(capsys, "info", run / "trajectory.zarr")["details"]["recordings"]
    expected = {
        "hold_share": 3e-4,
        "precision": "float64",
        "noisy": found.noisy.mean(),
        "curvature": np.quantile(found.values[~found.noisy], [0.05, 0.25, 0.5, 0.75, 0.95]).tolist(),
    }
    assert described["rounding"] == expected
    few = ["--placebo", "1", "--interventions", "5", "--output", tmp_path / "diagnosis.json", "--run", run]
    diagnosis = call_json(capsys, "diagnose", *few)["metrics"]
    assert diagnosis["diagnosis"]["rounding"] == expected
    assert diagnosis["findings"][0].startswith("rounding: decides about the curvature")
    assert call("info", run / "trajectory.zarr") == 0
    assert "held, each step 0.0003 of the loss" in capsys.readouterr().out


def test_a_recording_that_rounding_spoiled_is_warned_of(run, tmp_path, capsys):
    where = ["--store", tmp_path / "t.zarr", "--output", tmp_path / "t.safetensors", "--run", run]
    assert call("record", "--lr", "1e-8", "--steps", "12", "--quiet", *where) == 0
    info = call_json(capsys, "info", tmp_path / "t.zarr")
    (warned,) = info["warnings"]
    assert "vanished in the rounding" in warned
    assert "--lr" in warned
    assert "--hold" in warned
    share = info["details"]["recordings"][0]["rounding"]["vanished"]
    assert share > 0.1
    # Copies know it, too.
    assert call("store", "compact", tmp_path / "t.zarr", "--codec", "small", "--quiet") == 0
    merge = ["store", "merge", tmp_path / "t.zarr", tmp_path / "t.zarr", "--output", tmp_path / "m.zarr", "--quiet"]
    assert call(*merge) == 0
    assert [Store.open(tmp_path / n).recording().vanished_share for n in ("t.zarr", "m.zarr")] == [share, share]


@pytest.mark.parametrize(
    "options",
    [["--lr", "0.1"], ["--momentum", "0.9"], ["--stride", "2"], ["--loss-change", "next-batch"]],
    ids=lambda options: options[0],
)
def test_options_that_mean_nothing_are_refused(run, capsys, options):
    assert call(*HOLD, *options, "--run", run, "--quiet") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"causalprune: --hold and {options[0]}: expected one of them")
    assert error.count("\n") == 1


def test_a_share_without_held_weights_is_refused(run, capsys):
    assert call("record", "--hold-share", "0.01", "--run", run, "--quiet") == 2
    assert "expected --hold beside it" in capsys.readouterr().err


def test_held_and_moving_steps_are_not_merged(run, tmp_path, capsys):
    where = ["--store", tmp_path / "t.zarr", "--output", tmp_path / "t.safetensors", "--run", run]
    assert call("record", "--steps", "5", "--quiet", *where) == 0
    merge = ["store", "merge", run / "trajectory.zarr", tmp_path / "t.zarr", "--output", tmp_path / "m.zarr"]
    assert call(*merge, "--quiet") == 5
    assert "expected held True" in capsys.readouterr().err


def test_held_steps_have_no_lags(run, capsys):
    assert call("fit-gamma", "--lags", "1", "--name", "lags", "--run", run, "--quiet") == 5
    assert "expected steps that follow each other, for --lags 1" in capsys.readouterr().err


class Separable(nn.Module):
    """½Σ h_k(θ_k − m_k)², whose m depends on the minibatch and h doesn't."""

    def __init__(self, curvature):
        super().__init__()
        self.layer = nn.Linear(len(curvature), 1, bias=False)
        self.register_buffer("curvature", curvature)

    def forward(self, center):
        return 0.5 * (self.curvature * (self.layer.weight[0] - center) ** 2).sum()


def test_the_fit_finds_the_curvature_of_a_separable_quadratic_whatever_the_learning_rates(tmp_path, capsys):
    torch.manual_seed(0)
    h = torch.tensor([1.5, 1.0, 3.0, 4.0, 2.5, 2.0])
    model = Separable(h)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with Recorder(model, optimizer, tmp_path / "t.zarr", hold=True, codec="exact") as recorder:
        for scale in np.geomspace(0.1, 10, 60):
            center = scale * torch.randn(6)
            loss = model(center)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda c=center: model(c))
    reader = Store.open(tmp_path / "t.zarr").recording()
    assert reader.steps.lr.max() > 2 * reader.steps.lr.min()
    where = ["--store", tmp_path / "t.zarr", "--run", tmp_path]
    exact = ["--alpha-ratio", "1e-9", "--tol", "1e-12", "--held-out", "0"]
    evidence = call_json(capsys, "fit-gamma", *exact, *where)["metrics"]["evidence"]
    assert evidence["r2"] > 0.999
    stored = reader.read_fit(DEFAULT_FIT)
    assert stored.arrays["gamma"][0] == pytest.approx(h.numpy() / 2, rel=1e-2)
    # The saliency ½hθ² is what each weight's removal costs at its minimum.
    theta = model.layer.weight.detach().numpy()[0]
    inputs = read_inputs(load_criterion("curvature"), theta, Mask.all(reader.index), reader, stored, max_bytes=0)
    scores = load_criterion("curvature").score(inputs).primary
    assert scores == pytest.approx(h.numpy() * theta**2 / 2, rel=1e-2)
    grouped = call_json(capsys, "fit-gamma", "--granularity", "layer", "--name", "layers", *where)["metrics"]
    layers = grouped["curvature"]
    assert layers["learning_rate"] is None
    assert h.min() < layers["groups"][0]["curvature"] < h.max()
