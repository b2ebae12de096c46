"""Metrics against scikit-learn's."""

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import nn

from causalprune.base.compute.runtime import Processes
from causalprune.base.errors import DataError, MismatchError
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.training.metrics import evaluate_model


def linear(data):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(data.input_shape)), data.num_outputs))


def outputs_of(model, data):
    with torch.no_grad():
        return model(data.normalization(data.test.inputs)).double().numpy()


def measure(model, data, batch_size=50):
    return evaluate_model(model, data, "test", batch_size=batch_size, device=torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [1, 50, 1000])
def test_classification(batch_size):
    data = load_data(DataSpec())
    model = linear(data)
    ours = measure(model, data, batch_size)
    outputs, labels = outputs_of(model, data), data.test.targets.numpy()
    shares = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    assert ours["samples"] == len(labels)
    assert ours["loss"] == pytest.approx(reference.log_loss(labels, shares), rel=1e-6)
    assert ours["top1"] == pytest.approx(reference.accuracy_score(labels, outputs.argmax(1)), abs=1e-12)
    assert ours["top5"] == pytest.approx(reference.top_k_accuracy_score(labels, outputs, k=5), abs=1e-12)
    assert ours["guessing"] == np.bincount(labels).max() / len(labels)
    np.testing.assert_allclose(ours["per_class"], reference.recall_score(labels, outputs.argmax(1), average=None))
    assert list(ours) == ["task", "samples", "loss", "top1", "top5", "guessing", "per_class"]
    assert json.loads(json.dumps(ours)) == ours


def test_a_last_batch_of_one_is_no_obstacle_to_statistics_of_the_batch():
    data = load_data(DataSpec())
    model = nn.Sequential(linear(data), nn.BatchNorm1d(10, track_running_stats=False))
    assert len(data.test) % 358 == 1
    assert measure(model, data, 358)["samples"] == 359


def test_regression_in_original_units():
    data = load_data(DataSpec(name="diabetes"))
    model = linear(data)
    ours = measure(model, data)
    scale = data.task.target_normalization
    predicted = outputs_of(model, data)[:, 0] * scale.std.item() + scale.mean.item()
    truth = data.test.targets.double().numpy()
    assert ours["mse"] == pytest.approx(reference.mean_squared_error(truth, predicted), rel=1e-5)
    assert ours["r2"] == pytest.approx(reference.r2_score(truth, predicted), rel=1e-5)
    assert ours["mae"] == pytest.approx(reference.mean_absolute_error(truth, predicted), rel=1e-5)
    assert set(ours) == {"task", "samples", "loss", "mse", "r2", "mae"}


class Constant(nn.Module):
    def __init__(self, outputs, value=0.0):
        super().__init__()
        self.outputs, self.value = outputs, value

    def forward(self, inputs):
        return torch.full((len(inputs), self.outputs), self.value)


def test_a_constant_network_scores_the_share_of_class_0():
    data = load_data(DataSpec())
    ours = measure(Constant(10), data)
    assert ours["top1"] == (data.test.targets == 0).double().mean().item()
    assert ours["per_class"] == [1.0] + [0.0] * 9
    assert ours["loss"] == pytest.approx(np.log(10))


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "3590 NaN"), (float("inf"), "3590 infinite")])
def test_outputs_that_are_not_finite(value, word):
    with pytest.raises(DataError, match=word):
        measure(Constant(10, value), load_data(DataSpec()))


def test_outputs_of_another_shape():
    with pytest.raises(MismatchError, match=r"\(50, 10\)"):
        measure(Constant(11), load_data(DataSpec()))


def test_modes_and_gradients_are_left_as_they_were():
    data = load_data(DataSpec())
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Dropout(0.5)).train()
    model[2].eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    first, second = measure(model, data), measure(model, data)
    assert first == second
    assert [m.training for m in model] == [True, True, False, True]
    assert all(t.equal(before[name]) for name, t in model.state_dict().items())
    with pytest.raises(MismatchError):
        measure(nn.Sequential(model, nn.Linear(10, 3)), data)
    assert model[3].training


class Shared(Processes):
    """One of several processes whose sums are played: the others have computed theirs before."""

    def sum(self, value):
        sums.setdefault(self.rank, []).append(value)
        if self.rank < self.count - 1:
            return value
        return sum((sums[rank][len(sums[self.rank]) - 1] for rank in range(self.count)), torch.zeros_like(value))


sums: dict[int, list[torch.Tensor]] = {}


@pytest.mark.parametrize("count", [2, 3, 20])
def test_processes_that_share_the_batches_get_the_bits_of_one(count):
    """Also where there are more processes than batches; each but the last gets a part here, the last all."""
    data = load_data(DataSpec())
    model = linear(data)
    alone = measure(model, data, 50)
    assert len(data.test) > 3 * 50
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    sums.clear()
    for rank in range(count):
        found = evaluate_model(
            model, data, "test", batch_size=50, device=torch.device("cpu"), group=Shared(rank, count)
        )
        if rank == 0:
            assert len(passes) < 1 + 8
    assert found == alone
    # Each batch once, and one for each process that has none.
    assert len(passes) == max(count, -(-len(data.test) // 50))
