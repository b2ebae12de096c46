"""Held steps against autograd: Hessian products in float64, gradients of a loop of its own, copies of the network."""

import copy
import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import prune

from causalprune.base.errors import DataError, UsageError
from causalprune.models.mask import Mask
from causalprune.models.modes import evaluate_batchnorm
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.gradients import GradientMatrix, mean_squared_gradient, measured_curvature
from causalprune.training.held.steps import HeldSteps
from causalprune.training.options import DEFAULT_HOLD_SHARE
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store

SHARE = DEFAULT_HOLD_SHARE


def conv_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Softplus(), nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.Linear(5, 3)
    )


def minibatches(count=8, size=8):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 1, 6, 6, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(count)
    ]


def loss_of(model, inputs, targets):
    return functional.cross_entropy(model(inputs), targets)


def record(path, model, batches, loss=loss_of, measured=None, **options):
    """A loop of a user who holds the weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with Recorder(model, optimizer, path, hold=True, codec="exact", overwrite=True, **options) as recorder:
        for inputs, targets in batches:
            value = loss(model, inputs, targets)
            optimizer.zero_grad()
            value.backward()
            recorder.step(value, lambda x=inputs, y=targets: (measured or loss)(model, x, y))
    return Store.open(path).recording()


def float64_copy(model):
    """A network in float64, and those of its parameters that are recorded."""
    twin = copy.deepcopy(model).double()
    named = dict(twin.named_parameters())
    return twin, [named[entry.name] for entry in ParameterIndex.from_model(model)]


def curvature_along_gradient(model, batches, keep=None):
    """(T,) gᵀHg/‖g‖⁴ of the recorded weights by two backward passes in float64; and ‖g‖²."""
    twin, weights = float64_copy(model)
    found, norms = [], []
    for inputs, targets in batches:
        gradient = torch.autograd.grad(loss_of(twin, inputs.double(), targets), weights, create_graph=True)
        flat = torch.cat([g.flatten() for g in gradient])
        direction = flat.detach().clone()
        if keep is not None:
            direction *= keep
        product = torch.autograd.grad(flat @ direction, weights)
        along = direction @ torch.cat([p.flatten() for p in product])
        norms.append(float(direction @ direction))
        found.append(float(along) / norms[-1] ** 2)
    return np.array(found), np.array(norms)


def everything(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_network_is_left_as_it_was_to_the_bit(tmp_path, monkeypatch, precision):
    model = conv_net()
    if precision == "float32":
        monkeypatch.setattr(HeldSteps, "_in_float64", lambda *_: None)
    before, owned = everything(model), [id(p) for p in (*model.parameters(), *model.buffers())]
    reader = record(tmp_path / "t.zarr", model, minibatches())
    assert reader.num_rows == 8
    assert equal(model, before)
    # BatchNorm was in training mode, and the loop's own passes moved its averages.
    assert model[1].num_batches_tracked == 0
    assert [id(p) for p in (*model.parameters(), *model.buffers())] == owned
    assert reader.info.start_weights == reader.end_weights
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("call", range(1, 5))
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_so_it_is_after_an_error_in_the_middle_of_a_step(tmp_path, monkeypatch, call, precision):
    if precision == "float32":
        monkeypatch.setattr(HeldSteps, "_in_float64", lambda *_: None)
    model, calls = conv_net(), []
    before = everything(model)

    def breaking(model, inputs, targets):
        calls.append(len(calls))
        # The first row has four measurements: is it repeatable, then the losses at three points.
        if len(calls) == 4 + call:
            raise KeyboardInterrupt
        return loss_of(model, inputs, targets)

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "t.zarr", model, minibatches(), measured=breaking)
    assert equal(model, before)
    assert Store.open(tmp_path / "t.zarr").recording().num_rows == (1 if call < 4 else 2)


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_the_measured_curvature_is_that_of_two_backward_passes(tmp_path, size, masked):
    model, batches = conv_net(), minibatches(12, size)
    evaluate_batchnorm(model)
    index = ParameterIndex.from_model(model)
    keep = torch.arange(index.total) % 3 > 0 if masked else torch.ones(index.total, dtype=torch.bool)
    mask = Mask(index, keep)
    mask.apply_(model)
    expected, norms = curvature_along_gradient(model, batches, keep)
    errors = []
    for share in (0.1, 0.01, 0.001):
        reader = record(tmp_path / "t.zarr", model, batches, mask=mask, hold_share=share)
        found = measured_curvature(reader.steps, reader.precision)
        errors.append(np.abs(found.values - expected).max() / np.abs(expected).max())
    assert np.sqrt(norms) == pytest.approx(reader.steps.grad_norm, rel=1e-5)
    # O(η): ten times smaller a step, ten times smaller an error at least.
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10
    assert errors[2] < 1e-4


def test_a_row_is_the_step_along_the_gradient_and_its_loss_changes_by_that_step(tmp_path):
    model, batches = conv_net(), minibatches()
    evaluate_batchnorm(model)
    reader = record(tmp_path / "t.zarr", model, batches)
    twin, _ = float64_copy(model)
    for (inputs, targets), delta, row in zip(batches, reader.read_rows(0, 8), range(8), strict=True):
        gradient = torch.autograd.grad(loss_of(model, inputs, targets), [p for p in model.parameters() if p.ndim > 1])
        flat = torch.cat([g.flatten() for g in gradient]).double()
        lr, before = reader.steps.lr[row], reader.steps.loss_before[row]
        assert np.array_equal(delta, (-lr * flat).float().numpy())
        assert lr * float(flat @ flat) == pytest.approx(SHARE * before, rel=1e-12)
        # The step in the row, not one that was rounded to the weights' float32.
        moved, position = copy.deepcopy(twin), 0
        with torch.no_grad():
            for parameter in (p for p in moved.parameters() if p.ndim > 1):
                step = delta[position : position + parameter.numel()]
                parameter += torch.from_numpy(step).double().view_as(parameter)
                position += parameter.numel()
            changed = loss_of(moved, inputs.double(), targets) - loss_of(twin, inputs.double(), targets)
        assert reader.loss_change[row] == pytest.approx(float(changed), abs=1e-15)


def test_every_gradient_is_read_back(tmp_path):
    """Gradients far below the rounding of the weights: what moves them doesn't vanish."""
    model, batches = conv_net(), minibatches(4, 1)
    evaluate_batchnorm(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[:1] *= 1e4
    reader = record(tmp_path / "t.zarr", model, batches)
    names = [entry.name for entry in reader.index]
    exact = []
    for inputs, targets in batches:
        model.zero_grad()
        loss_of(model, inputs, targets).backward()
        exact.append(torch.cat([dict(model.named_parameters())[n].grad.flatten() for n in names]).double().numpy())
    lost = np.abs(reader.read_rows(0, 4)) < np.spacing(1e3 * np.ones(1, np.float32)) / 2
    assert lost.any()
    matrix = GradientMatrix.from_deltas(
        lambda chosen: reader.column_blocks(columns=chosen),
        reader.learning_rates,
        reader.column_index,
        max_rows=10,
        max_bytes=10**9,
    )
    columns = np.arange(reader.num_columns)
    found = np.concatenate([block for _, block in matrix.read(columns)], axis=1)
    assert found == pytest.approx(np.array(exact), rel=1e-6, abs=0)
    squares = mean_squared_gradient(reader.row_blocks(), reader.learning_rates, reader.num_columns)
    assert squares == pytest.approx(np.square(exact).mean(axis=0), rel=1e-6, abs=0)


def test_a_minibatch_without_a_gradient_is_a_row_of_zeros(tmp_path):
    model, batches = conv_net(), minibatches(3)

    def loss(model, inputs, targets):
        return loss_of(model, inputs, targets) * float(inputs[0, 0, 0, 0] != batches[1][0][0, 0, 0, 0])

    reader = record(tmp_path / "t.zarr", model, batches, loss)
    assert not reader.read_rows(1, 2).any()
    found = measured_curvature(reader.steps)
    assert found.noisy.tolist() == [False, True, False]
    assert np.isfinite(found.values).all()
    assert (reader.steps.lr > 0).all()


def test_a_step_is_no_longer_than_a_tenth_of_the_weights(tmp_path):
    """Where the loss is large and flat, η‖g‖² of any share of it would be a step out of the network."""
    model, batches = conv_net(), minibatches(3)
    reader = record(tmp_path / "t.zarr", model, batches, lambda *_: 1e6 + loss_of(*_))
    size = np.sqrt(sum(float((p.detach().double() ** 2).sum()) for p in model.parameters() if p.ndim > 1))
    lengths = np.linalg.norm(reader.read_rows(0, 3).astype(np.float64), axis=1)
    assert lengths == pytest.approx(0.1 * size, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "options", "found"),
    [
        ({"momentum": 0.9}, {}, "momentum 0.9"),
        ({"weight_decay": 0.1}, {}, "weight decay 0.1"),
        ({}, {"stride": 2}, "stride 2"),
        ({}, {"loss_change": "next-batch"}, "next-batch losses"),
        ({}, {"hold_share": 1.0}, "1.0"),
        ({}, {"hold_share": float("nan")}, "nan"),
    ],
    ids=str,
)
def test_what_no_held_step_can_be_is_refused(tmp_path, settings, options, found):
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, **settings)
    with pytest.raises(UsageError) as refused:
        Recorder(model, optimizer, tmp_path / "t.zarr", hold=True, **options)
    assert refused.value.found == found
    assert not (tmp_path / "t.zarr").exists()
    with pytest.raises(UsageError, match="adam"):
        Recorder(model, torch.optim.Adam(model.parameters()), tmp_path / "t.zarr", hold=True)


@pytest.mark.parametrize("early", [True, False])
def test_weights_that_the_loop_changes_are_refused(tmp_path, early):
    model, ((inputs, targets), *_) = conv_net(), minibatches()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    recorder = Recorder(model, optimizer, tmp_path / "t.zarr", hold=True)

    def step():
        loss = loss_of(model, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        recorder.step(loss, lambda: loss_of(model, inputs, targets))

    if not early:
        step()
    # PyTorch counts no change to data.
    model[4].weight.data += 1
    with pytest.raises(UsageError, match="weights"):
        step()
    recorder.writer.abort()


@pytest.mark.parametrize("factor", [0.5, 65536.0], ids=["clipped", "scaled"])
def test_a_gradient_of_another_loss_is_refused(tmp_path, factor):
    model, ((inputs, targets), *_) = conv_net(), minibatches()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = everything(model)
    recorder = Recorder(model, optimizer, tmp_path / "t.zarr", hold=True)
    loss = loss_of(model, inputs, targets)
    loss.backward()
    for parameter in model.parameters():
        parameter.grad *= factor
    with pytest.raises(UsageError, match="neither clip nor scale"):
        recorder.step(loss, lambda: loss_of(model, inputs, targets))
    assert equal(model, before)
    recorder.writer.abort()


def test_a_loss_that_is_not_finite_is_refused(tmp_path):
    model = conv_net()
    with pytest.raises(DataError, match="finite"):
        record(
            tmp_path / "t.zarr",
            model,
            minibatches(),
            measured=lambda *_: loss_of(*_) / (model[0].weight.dtype == torch.float32),
        )


class InFloat32(nn.Linear):
    def forward(self, inputs):
        return functional.linear(inputs.float(), self.weight.float(), self.bias.float()).to(inputs.dtype)


class Fixed(nn.Module):
    """A layer that takes float32 alone."""

    def forward(self, inputs):
        if inputs.dtype != torch.float32:
            raise NotImplementedError("only for float32")
        return inputs


@pytest.mark.parametrize(
    "reason", ["a layer that can't", "outputs in float32", "random numbers", "weights of the loop's own"]
)
def test_a_network_that_does_not_compute_in_float64_is_measured_in_its_own_precision(tmp_path, caplog, reason):
    model, batches = conv_net(), minibatches(6)
    loss = loss_of
    evaluate_batchnorm(model)
    if reason == "a layer that can't":
        model.insert(2, Fixed())
    elif reason == "outputs in float32":
        model = nn.Sequential(model, type("Cast", (nn.Module,), {"forward": lambda _, x: x.float()})())
    elif reason == "random numbers":
        model.insert(3, nn.Dropout(0.3))
    else:
        held = dict(model.named_parameters())

        def loss(model, inputs, targets):
            return functional.cross_entropy(functional_call(model, held, (inputs,)), targets)

    before = everything(model)
    with caplog.at_level(logging.WARNING, "causalprune"):
        reader = record(tmp_path / "t.zarr", model, batches, loss, hold_share=0.03)
    assert equal(model, before)
    (said,) = caplog.messages
    assert "computed in float32" in said
    assert "\n" not in said
    assert reader.precision == "float32"
    # Both losses of the same draws: to first order the loss falls by η‖g‖².
    first = reader.steps.lr * reader.steps.grad_norm**2
    assert -reader.loss_change == pytest.approx(first, rel=0.1)
    if reason != "random numbers":
        plain = nn.Sequential(*(layer for layer in model.modules() if not list(layer.children())))
        plain = nn.Sequential(*(layer for layer in plain if type(layer).__name__ not in ("Cast", "Fixed")))
        found, (expected, _) = measured_curvature(reader.steps, "float32"), curvature_along_gradient(plain, batches)
        assert not found.noisy.all()
        assert found.values[~found.noisy] == pytest.approx(expected[~found.noisy], rel=0.3)


def test_a_curvature_that_rounding_decides_about_is_flagged(tmp_path):
    """In a network that is sure of everything, float32 losses tell nothing, and the flags say so."""
    model, batches = conv_net(), minibatches(40)
    evaluate_batchnorm(model)
    model.append(Fixed())
    with torch.no_grad():
        model[6].weight *= 3
    reader = record(tmp_path / "t.zarr", model, batches)
    exact, _ = curvature_along_gradient(nn.Sequential(*list(model)[:-1]), batches)
    found = measured_curvature(reader.steps, reader.precision)
    wrong = np.abs(found.values / exact - 1) > 0.5
    assert wrong.any()
    assert found.noisy[wrong].all()
    assert not measured_curvature(record(tmp_path / "u.zarr", conv_net(), batches).steps).noisy.any()


class Sequence(nn.Module):
    """Recurrent layers hold on to their weights, and a weight is used twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = nn.LSTM(6, 6, batch_first=True)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.full((6,), 0.3))

    def forward(self, inputs):
        hidden, _ = self.recurrent(inputs[:, 0])
        made_here = functional.linear(torch.ones(1, 6), torch.ones(6, 6)).to(hidden.dtype)
        return self.second(torch.tanh(self.first(hidden[:, -1] * made_here * self.scale)))[:, :3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_networks_of_other_kinds_compute_in_float64(tmp_path, dtype):
    model, batches = Sequence().to(dtype), [(x.to(dtype), y) for x, y in minibatches(5)]

    def loss(model, inputs, targets):
        return functional.cross_entropy(model(inputs).double(), targets)

    before, outputs = everything(model), model(batches[0][0])
    reader = record(tmp_path / "t.zarr", model, batches, loss)
    assert reader.precision == "float64"
    assert equal(model, before)
    assert torch.equal(model(batches[0][0]), outputs)
    expected, _ = curvature_along_gradient(model, batches)
    if dtype != torch.bfloat16:
        assert measured_curvature(reader.steps).values == pytest.approx(expected, rel=1e-3)
    else:
        # The gradient is known to three digits, but the curvature is measured along the step that was taken.
        assert measured_curvature(reader.steps).values == pytest.approx(expected, rel=0.2)


def test_what_a_layer_computes_of_its_weights_is_left_as_it_was(tmp_path):
    """Pruned and normalized layers hold their weight as an attribute, and recurrent ones a list of theirs."""
    torch.manual_seed(0)
    model, batches = Sequence(), minibatches(3)
    prune.l1_unstructured(model.recurrent, "weight_hh_l0", 0.5)
    model.second = nn.utils.spectral_norm(nn.Linear(6, 6))
    model.eval()
    model(batches[0][0])
    before = [model.recurrent.weight_hh_l0, model.second.weight]
    values = [tensor.clone() for tensor in before]
    reader = record(tmp_path / "t.zarr", model, batches[:1] * 2)
    assert reader.precision == "float64"
    after = [model.recurrent.weight_hh_l0, model.second.weight]
    assert all(torch.equal(now, then) for now, then in zip(after, values, strict=True))
    assert all(weight.dtype == torch.float32 for weight in model.recurrent._flat_weights)


def test_biases_and_normalizations_do_not_move(tmp_path):
    model, batches = conv_net(), minibatches(3)
    evaluate_batchnorm(model)
    reader = record(tmp_path / "a.zarr", model, batches)
    for parameter in model.parameters():
        parameter.requires_grad = parameter.ndim > 1
    frozen = record(tmp_path / "b.zarr", model, batches)
    assert np.array_equal(reader.read_rows(0, 3), frozen.read_rows(0, 3))
    assert reader.steps.to_matrix().tolist() == frozen.steps.to_matrix().tolist()
