"""Recordings of loops of one's own, with several learning rates or of a part of the weights, through every reader."""

import numpy as np
import pytest
import torch
from commands import call, call_json
from torch import nn

from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.mask import Mask
from causalprune.models.registry import build_model
from causalprune.pruning.criteria import load_criterion, read_inputs
from causalprune.solver.features import FeatureSource
from causalprune.solver.recording.curvature import curvature_table
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Fit, Store

RATES = (0.05, 0.01)
ROWS = 60


class Separable(nn.Module):
    """½ Σ h (θ − x)² of two layers and a bias; x is the minibatch's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 2, bias=False), nn.Linear(2, 2)
        self.double()
        self.curvature = torch.tensor([1.0] * 6 + [4.0] * 4 + [2.0] * 2, dtype=torch.float64)

    def forward(self, inputs):
        theta = torch.cat([p.flatten() for p in (self.first.weight, self.second.weight, self.second.bias)])
        return 0.5 * (self.curvature * (theta - inputs) ** 2).sum()


def record_groups(path, rates=RATES, bias_rate=0.02):
    """Steps of SGD whose rate differs between the layers and the bias; the gradients of the recorded weights."""
    model, gradients = Separable(), []
    pairs = [(model.first.weight, rates[0]), (model.second.weight, rates[1]), (model.second.bias, bias_rate)]
    optimizer = torch.optim.SGD([{"params": [p], "lr": lr} for p, lr in pairs])
    generator = torch.Generator().manual_seed(1)
    with Recorder(model, optimizer, path, codec="exact", max_rows=ROWS) as recorder:
        for _ in range(ROWS):
            inputs = torch.randn(12, generator=generator, dtype=torch.float64)
            optimizer.zero_grad()
            loss = model(inputs)
            loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p, _ in pairs[:2]]).numpy())
            recorder.step(loss, lambda inputs=inputs: model(inputs))
    return Store.open(path), np.array(gradients)


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    return record_groups(tmp_path_factory.mktemp("groups") / "t.zarr")


def test_gradients_are_read_at_the_rate_of_each_column(groups):
    reader, gradients = groups[0].recording(), groups[1]
    mask = Mask.all(reader.index)
    found = read_inputs(load_criterion("obd"), np.zeros(10, np.float32), mask, reader, None, max_bytes=0)
    assert found.mean_squared_gradient == pytest.approx((gradients**2).mean(0), rel=1e-5)
    found = read_inputs(load_criterion("chita"), np.zeros(10, np.float32), mask, reader, None, max_bytes=0)
    assert found.gradients.gram() == pytest.approx(gradients @ gradients.T, rel=1e-5, abs=1e-4)
    part = gradients[:, [1, 7]]
    assert found.gradients.gram(np.array([1, 7])) == pytest.approx(part @ part.T, rel=1e-5, abs=1e-4)


def test_curvature_is_that_of_the_loss_at_the_rate_of_each_column(groups):
    """γ = −1/η + h/2 for the columns, and by least squares for the layers, whatever the bias does."""
    reader = groups[0].recording()
    h, eta = np.repeat([1.0, 4.0], [6, 4]), np.repeat(RATES, [6, 4])
    arrays = {"gamma": (-1 / eta + h / 2)[None], "dual_correlation": np.ones((1, 10))}
    fit = Fit(arrays, {"granularity": "parameter"}, "", reader)
    theta = np.linspace(1, 2, 10, dtype=np.float32)
    criterion = load_criterion("curvature")
    criterion.require(reader.info.update_rule, reader.learning_rates.extremes)
    inputs = read_inputs(criterion, theta, Mask.all(reader.index), reader, fit, max_bytes=0)
    assert criterion.score(inputs).primary == pytest.approx(h * theta**2 / 2)
    table, found = curvature_table(reader, "layer", None, lags=False, memory_bytes=2**30, seed=0)
    assert found["curvature"] == pytest.approx([1, 4], rel=1e-3)
    assert table["learning_rate"] == list(RATES)
    assert table["others"] == "a column"


def test_columns_are_divided_by_their_own_rate(groups):
    reader, gradients = groups[0].recording(), groups[1]
    source = FeatureSource(reader, lr_scale=True)
    assert source.read(0, 10) == pytest.approx(gradients**2, rel=1e-5)
    assert source.read(4, 9) == pytest.approx(gradients[:, 4:9] ** 2, rel=1e-5)
    (block,) = [np.concatenate([rows for _, rows in source.row_blocks(16)])]
    assert block == pytest.approx(gradients**2, rel=1e-5)


def test_one_gamma_for_several_rates_is_not_divided_by_one(groups, tmp_path, capsys):
    where = ["--store", groups[0].path, "--run", tmp_path]
    assert call("fit-gamma", "--normalize", "lr", *where) == 5
    assert "expected one learning rate above 0" in capsys.readouterr().err
    assert call("info", groups[0].path) == 0
    assert "lr 0.05 and 0.01 and 0.02" in capsys.readouterr().out


def test_rates_that_change_in_one_group_only_are_noticed(tmp_path):
    model = Separable()
    optimizer = torch.optim.SGD(
        [{"params": [p], "lr": lr} for p, lr in zip(model.parameters(), (*RATES, 0.1), strict=True)]
    )
    with Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        for number in range(4):
            optimizer.param_groups[1]["lr"] = RATES[1] / (1 + number)
            optimizer.zero_grad()
            loss = model(torch.zeros(12))
            loss.backward()
            recorder.step(loss, lambda: model(torch.zeros(12)))
    reader = Store.open(tmp_path / "t.zarr").recording()
    rates = reader.learning_rates.extremes
    assert reader.info.update_rule.against_curvature(rates) == "learning rates from 0.0025 to 0.05"
    assert curvature_table(reader, "layer", None, lags=False, memory_bytes=2**30, seed=0)[0].keys() == {"unavailable"}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    path = tmp_path_factory.mktemp("pretrained") / "run"
    assert (
        call(
            "pretrain",
            "--dataset",
            "breast-cancer",
            "--model",
            "mlp",
            "--hidden",
            "12,8",
            "--epochs",
            "1",
            "--run",
            path,
            "-q",
        )
        == 0
    )
    return path / "pretrained.safetensors"


def record_part(checkpoint, path, columns, mask=None):
    """A few steps on the network of a checkpoint, of which some weights are recorded."""
    start = load_checkpoint(checkpoint)
    model = build_model(start.info.model, seed=0)
    model.load_state_dict(start.weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(0)
    with Recorder(model, optimizer, path, columns=columns, mask=mask or start.mask) as recorder:
        for _ in range(12):
            inputs, labels = torch.randn(16, 30), torch.randint(0, 2, (16,))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            recorder.step(loss, lambda x=inputs, y=labels: nn.functional.cross_entropy(model(x), y))
    return model


@pytest.mark.parametrize("criterion", ["gamma", "obd", "chita"])
def test_weights_that_were_not_recorded_are_left_alone(pretrained, tmp_path, capsys, criterion):
    store = tmp_path / "t.zarr"
    dense = load_checkpoint(pretrained)
    names = [entry.name for entry in dense.info.index]
    record_part(pretrained, store, names[1])
    left = [names[0], *names[2:]]
    assert Store.open(store).recording().info.left_out == tuple(left)
    where = ["--store", store, "--run", tmp_path, "--checkpoint", pretrained]
    call_json(capsys, "fit-gamma", "--held-out", "0", "--store", store, "--run", tmp_path)
    for more in ([], ["--prune-frozen", "--overwrite"]):
        said = call_json(capsys, "apply-mask", "--criterion", criterion, "--sparsity", "0.5", *where, *more)
        (warning,) = [one for one in said["warnings"] if "left alone" in one]
        assert warning.startswith(f"not recorded, left alone: {', '.join(left)}, ")
        pruned = load_checkpoint(tmp_path / "pruned.safetensors")
        assert [layer.kept == layer.total for layer in pruned.mask.per_layer()] == [name in left for name in names]
        for name in left:
            assert torch.equal(pruned.weights[name], dense.weights[name])
    # The network may be pruned already, also where nothing was recorded.
    again = tmp_path / "again.zarr"
    record_part(tmp_path / "pruned.safetensors", again, names[0])
    where = [
        "--run",
        tmp_path,
        "--checkpoint",
        tmp_path / "pruned.safetensors",
        "--output",
        tmp_path / "twice.safetensors",
    ]
    call_json(capsys, "fit-gamma", "--held-out", "0", "--store", again, "--run", tmp_path)
    call_json(capsys, "apply-mask", "--criterion", criterion, "--sparsity", "0.9", "--store", again, *where)
    twice = load_checkpoint(tmp_path / "twice.safetensors").mask.tensors()
    assert torch.equal(twice[names[1]], pruned.mask.tensors()[names[1]])
    assert call("info", again) == 0
    assert f"not recorded    {names[1]}" in capsys.readouterr().out


def test_the_weights_after_the_last_step_are_known_as_long_as_the_others_stay(pretrained, tmp_path):
    names = [entry.name for entry in load_checkpoint(pretrained).info.index]
    model = record_part(pretrained, tmp_path / "t.zarr", names[1])
    reader = Store.open(tmp_path / "t.zarr").recording()
    assert reader.end_weights == reader.index.digest(model.state_dict())
    assert reader.num_columns == reader.index[names[1]].size
