"""What is measured and repaired of attention, recurrent layers and Conv1D, against what they are made of."""

import copy

import pytest
import torch
from layers_of_others import Conv1D
from torch import nn

import causalprune as cp
from causalprune.base.errors import MismatchError
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.layer_statistics import PackedStatistics, layer_statistics, pack


def measured(model, x):
    """Statistics by the loss Σ outputs², whose gradient is known."""
    index = ParameterIndex.from_model(model)
    return layer_statistics(model, index, [x], lambda outputs, _: outputs.square().sum())


class LastStep(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


class Unrolled(nn.Module):
    """An LSTM of one layer, step by step, with Linear layers."""

    def __init__(self, lstm):
        super().__init__()
        self.inputs = nn.Linear(lstm.input_size, 4 * lstm.hidden_size)
        self.hidden = nn.Linear(lstm.hidden_size, 4 * lstm.hidden_size)
        self.inputs.load_state_dict({"weight": lstm.weight_ih_l0, "bias": lstm.bias_ih_l0})
        self.hidden.load_state_dict({"weight": lstm.weight_hh_l0, "bias": lstm.bias_hh_l0})

    def forward(self, x):
        h = c = x.new_zeros(len(x), self.hidden.in_features)
        for step in x.unbind(1):
            i, f, g, o = (self.inputs(step) + self.hidden(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


def assert_same(found, expected):
    for vector in ("squares", "gradients", "means"):
        torch.testing.assert_close(getattr(found, vector), getattr(expected, vector), rtol=1e-4, atol=1e-6)
    assert found.positions == expected.positions


def test_an_lstm_is_measured_as_its_steps_are():
    torch.manual_seed(0)
    lstm, x = nn.LSTM(3, 5, batch_first=True), torch.randn(20, 7, 3)
    found, expected = measured(LastStep(lstm), x), measured(Unrolled(lstm), x)
    assert_same(found["layer.weight_ih_l0"], expected["inputs.weight"])
    assert_same(found["layer.weight_hh_l0"], expected["hidden.weight"])
    assert found["layer.weight_hh_l0"].bias == "layer.bias_hh_l0"
    # The kernels are as before.
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cudnn.enabled


def test_an_lstm_is_pruned_as_its_steps_are():
    torch.manual_seed(0)
    lstm, x = nn.LSTM(3, 5, batch_first=True), torch.randn(20, 7, 3)
    one, other = LastStep(lstm), Unrolled(lstm)
    masks = [cp.prune(model, sparsity=0.5, criterion="wanda", inputs=x) for model in (one, other)]
    assert torch.equal(masks[0].keep, masks[1].keep)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (nn.GRU, {"hidden_size": 4, "num_layers": 2, "bidirectional": True}),
        (nn.RNN, {"hidden_size": 4}),
        (nn.LSTM, {"hidden_size": 5, "proj_size": 4}),
    ],
)
def test_every_recurrent_matrix_is_measured_and_repaired(kind, sizes):
    torch.manual_seed(0)
    model = LastStep(kind(3, **sizes, batch_first=True)).double()
    x = torch.randn(30, 9, 3).double()
    assert list(measured(model, x)) == [entry.name for entry in ParameterIndex.from_model(model)]
    dense = copy.deepcopy(model)
    mask = cp.prune(model, sparsity=0.3, criterion="magnitude")
    with torch.no_grad():
        before = (model(x) - dense(x)).square().sum()
        layers = cp.repair(model, mask, dense=dense, inputs=x, samples=30)
        after = (model(x) - dense(x)).square().sum()
    assert [entry.name for entry in mask.index if not mask.tensors()[entry.name].all()] == sorted(
        (layer.name for layer in layers), key=[entry.name for entry in mask.index].index
    )
    assert after < before
    for name, keep in mask.tensors().items():
        assert (model.get_parameter(name)[~keep] == 0).all()


class Attends(nn.Module):
    def __init__(self, mine, other=None):
        super().__init__()
        self.attention, self.other = mine, other

    def forward(self, x):
        source = x if self.other is None else self.other(x)
        return self.attention(x, source, source, need_weights=False)[0].flatten(1)


class ThreeLayers(nn.Module):
    """Self-attention of one head with a Linear layer for each projection."""

    def __init__(self, attention):
        super().__init__()
        width = attention.embed_dim
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.packed.load_state_dict({"weight": attention.in_proj_weight, "bias": attention.in_proj_bias})
        self.out.load_state_dict(attention.out_proj.state_dict())

    def forward(self, x):
        query, key, value = self.packed(x).chunk(3, dim=-1)
        return self.out(nn.functional.scaled_dot_product_attention(query, key, value)).flatten(1)


def test_packed_projections_are_measured_as_a_linear_layer_is():
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(4, 1, batch_first=True), torch.randn(20, 5, 4)
    one, other = Attends(attention), ThreeLayers(attention)
    torch.testing.assert_close(one(x), other(x))
    found, expected = measured(one, x), measured(other, x)
    assert_same(found["attention.in_proj_weight"], expected["packed.weight"])
    assert_same(found["attention.out_proj.weight"], expected["out.weight"])


def test_projections_of_other_inputs_are_left_alone_and_said(caplog):
    torch.manual_seed(0)
    x = torch.randn(20, 5, 4)
    model = Attends(nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 4))
    dense = copy.deepcopy(model)
    mask = cp.prune(model, sparsity=0.5, criterion="surgeon", inputs=x)
    first, *others = mask.per_layer()
    assert first.kept == 48
    assert sum(layer.kept for layer in others) == 16
    assert "not measured, left alone: attention.in_proj_weight, 48 weights" in caplog.text
    caplog.clear()
    mask = cp.prune(model, sparsity=0.5, criterion="magnitude", mask=mask)
    layers = cp.repair(model, mask, dense=dense, inputs=x)
    assert "attention.in_proj_weight" not in [layer.name for layer in layers]
    assert "not repaired, because no product uses them as a whole: attention.in_proj_weight" in caplog.text


def test_embeddings_are_left_alone_by_what_measures_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    mask = cp.prune(model, sparsity=0.5, criterion="rank-sum", inputs=torch.randint(0, 7, (30,)), prune="0.weight")
    assert [layer.kept for layer in mask.per_layer()] == [28, 6]
    only = ParameterIndex.from_model(model, "0.weight").only(["0.weight"])
    with pytest.raises(MismatchError, match=r"layer 0\.weight: expected to be reached"):
        layer_statistics(model, only, [torch.randint(0, 7, (30,))], lambda outputs, _: outputs.sum())


@pytest.fixture
def conv1d_and_linear():
    torch.manual_seed(0)
    conv, linear = Conv1D(6, 5), nn.Linear(5, 6)
    linear.load_state_dict({"weight": conv.weight.T, "bias": conv.bias})
    return tuple(nn.Sequential(first, nn.Tanh(), nn.Linear(6, 3)) for first in (conv, linear))


@pytest.mark.parametrize("criterion", ["wanda", "surgeon", "rank-sum", "magnitude", "lamp"])
def test_conv1d_is_pruned_and_repaired_as_a_linear_layer_is(conv1d_and_linear, criterion):
    one, other = conv1d_and_linear
    other[2].load_state_dict(one[2].state_dict())
    x, kept = torch.randn(50, 5), []
    for model in (one, other):
        dense = copy.deepcopy(model)
        mask = cp.prune(model, sparsity=0.5, criterion=criterion, inputs=x)
        cp.repair(model, mask, dense=dense, inputs=x)
        kept.append([mask.tensors()["0.weight"], mask.tensors()["2.weight"]])
    assert torch.equal(kept[0][0].T, kept[1][0])
    assert torch.equal(kept[0][1], kept[1][1])
    torch.testing.assert_close(one[0].weight.T, other[0].weight)
    torch.testing.assert_close(one(x), other(x))


def test_neurons_of_conv1d_are_its_columns(conv1d_and_linear):
    one, _ = conv1d_and_linear
    mask = cp.prune(one, sparsity=0.4, criterion="magnitude", granularity="neuron", inputs=torch.randn(20, 5))
    columns = mask.tensors()["0.weight"]
    assert torch.equal(columns.all(0), columns.any(0))
    assert 0 < columns.any(0).sum() < 6
    assert mask.tensors()["2.weight"].all()


def test_statistics_of_some_layers_are_stored():
    model = Attends(nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 4))
    index, x = ParameterIndex.from_model(model), torch.randn(20, 5, 4)
    found = measured(model, x)
    assert list(found) == ["attention.out_proj.weight", "other.weight"]
    arrays, layers = pack(found)
    packed = PackedStatistics(arrays, layers, index, "here")
    assert list(packed) == list(found)
    assert_same(packed["other.weight"], found["other.weight"])
