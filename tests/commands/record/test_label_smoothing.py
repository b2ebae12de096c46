"""record --label-smoothing: the loss that is stepped along, measured and kept is the smoothed one."""

import numpy as np
import pytest
import torch
from commands import call, call_json

from causalprune.commands._network import set_up
from causalprune.config.record import RecordConfig
from causalprune.data.batches import Batches
from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import Store

SHARE = 0.2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("smoothed") / "run"
    tiny = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
    assert call("pretrain", *tiny, "--epochs", "1", "--run", path, "--quiet") == 0
    # All samples in one minibatch, so that their order doesn't matter.
    record = ["record", "--batch-size", "1000", "--epochs", "3", "--lr", "0.1", "--codec", "exact"]
    assert call(*record, "--label-smoothing", SHARE, "--run", path, "--quiet") == 0
    assert call(*record, "--run", path, "--store", path / "plain.zarr", "--output", path / "p.safetensors", "-q") == 0
    return path


def by_hand(run, share):
    """The loss of the first step and its gradient, from the definition of label smoothing."""
    source = run / "pretrained.safetensors"
    device, data, model, mask = set_up(load_checkpoint(source), source, RecordConfig(run=run, device="cpu"))
    (batch,) = Batches(data, "train", batch_size=1000, device=device, seed=0, augment="none").epoch(0)
    inputs, labels = batch
    logs = torch.log_softmax(model(inputs).double(), dim=1)
    of_label = -logs[torch.arange(len(labels)), labels]
    loss = ((1 - share) * of_label - share * logs.mean(1)).mean()
    loss.backward()
    parameters = dict(model.named_parameters())
    return loss.item(), np.concatenate([parameters[entry.name].grad.flatten().numpy() for entry in mask.index])


@pytest.mark.parametrize(("store", "share"), [("trajectory.zarr", SHARE), ("plain.zarr", 0.0)])
def test_loss_and_step_are_those_of_the_smoothed_loss(run, store, share):
    reader = Store.open(run / store).recording()
    loss, gradient = by_hand(run, share)
    assert reader.steps.loss_before[0] == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(reader.read_rows(0, 1)[0], -0.1 * gradient, rtol=1e-3, atol=1e-7)
    assert reader.info.label_smoothing == share


def test_what_was_recorded_is_said_and_not_mixed(run, capsys):
    assert call("info", run / "trajectory.zarr", "--quiet") == 0
    assert "label smoothing 0.2" in " ".join(capsys.readouterr().out.split())
    stores = [run / "trajectory.zarr", run / "plain.zarr"]
    assert call("store", "merge", *stores, "--output", run / "both.zarr", "--quiet") == 5
    assert "label_smoothing" in capsys.readouterr().err


def test_a_recording_without_it_is_named_as_before(run, capsys):
    assert call_json(capsys, "info", run / "p.safetensors")["details"]["config"].get("label_smoothing") is None
