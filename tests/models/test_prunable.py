"""Which parameters of a network are prunable, which are named, and which are neither."""

import pytest
import torch
from layers_of_others import Conv1D, TinyGPT2
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from causalprune.base.errors import CorruptError, DataError, UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.prunable import not_prunable
from causalprune.pruning.compact import dead_units


def names(model, *patterns):
    return [entry.name for entry in ParameterIndex.from_model(model, patterns)]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
        (
            nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
            ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
        ),
        (nn.LSTM(3, 4, proj_size=2), ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
        (
            nn.GRU(3, 4, 2, bidirectional=True),
            [f"weight_{which}_l{n}{way}" for n in (0, 1) for way in ("", "_reverse") for which in ("ih", "hh")],
        ),
        (nn.RNN(3, 4, bias=False), ["weight_ih_l0", "weight_hh_l0"]),
        (nn.LSTMCell(3, 4), ["weight_ih", "weight_hh"]),
        (Conv1D(6, 4), ["weight"]),
    ],
)
def test_every_matrix_of_a_layer_is_prunable(layer, expected):
    index = ParameterIndex.from_model(layer)
    assert [entry.name for entry in index] == expected
    parameters = dict(layer.named_parameters())
    assert [entry.shape for entry in index] == [tuple(parameters[name].shape) for name in expected]
    rest = [name for name, parameter in parameters.items() if parameter.dim() > 1 and name not in expected]
    assert all(name in ("bias_k", "bias_v") for name in rest)


def test_units_of_conv1d_are_its_columns():
    assert [(e.name, e.filter_axis, e.num_units, e.kind) for e in ParameterIndex.from_model(Conv1D(6, 4))] == [
        ("weight", 1, 6, "layer")
    ]
    stranger = type("Conv1D", (nn.Module,), {})()
    stranger.weight = nn.Parameter(torch.ones(4, 6))
    with pytest.raises(DataError, match="at least one Linear, Conv, attention or recurrent layer"):
        ParameterIndex.from_model(stranger)


def test_what_is_named_stands_in_the_order_of_the_modules():
    model = TinyGPT2()
    plain = [f"{layer}.weight" for layer in ("c_attn", "c_proj", "c_fc", "c_out", "head")]
    assert names(model) == plain
    # The tokens are the head's weight, which is prunable anyway.
    assert names(model, "wte.weight") == plain
    assert names(model, "wpe", "ln.*") == ["wpe", "ln.weight", "ln.bias", *plain]
    index = ParameterIndex.from_model(model, "wpe")
    assert index.entries[0].kind == "named"
    assert [entry.offset for entry in index] == [0, *(entry.offset + 48 for entry in ParameterIndex.from_model(model))]
    assert ParameterIndex.from_json(index.to_json()) == index
    assert index.goes_with(model)
    assert not index.goes_with(TinyGPT2(length=7))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("wte", r"expected a pattern that matches a parameter, such as .*did you mean 'wpe'.*found 'wte'"),
        ("scale", r"expected parameters of one dimension or more.*found scale"),
        ("normed.weight_g", r"that no layer computes a weight from, found normed\.weight_g"),
        ("orthogonal.*original", r"that no layer computes a weight from, found orthogonal"),
    ],
)
def test_a_pattern_that_names_nothing_to_prune_is_refused(pattern, message):
    model = TinyGPT2()
    model.scale = nn.Parameter(torch.ones(()))
    with pytest.warns(FutureWarning):
        model.normed = weight_norm(nn.Linear(3, 3))
    model.orthogonal = parametrizations.orthogonal(nn.Linear(3, 3))
    with pytest.raises(UsageError, match=message):
        ParameterIndex.from_model(model, pattern)


def test_recurrent_weights_that_are_computed_are_left_out(caplog):
    model = nn.LSTM(3, 4)
    with pytest.warns(FutureWarning):
        weight_norm(model, "weight_hh_l0")
    assert names(model) == ["weight_ih_l0"]
    assert "can't be pruned: the weight is computed" in caplog.text


def test_masks_of_torch_are_taken_over_for_every_weight():
    model = nn.MultiheadAttention(4, 2)
    prune.l1_unstructured(model, "in_proj_weight", 0.5)
    index = ParameterIndex.from_model(model)
    assert index.entries[0].name == "in_proj_weight_orig"
    mask = Mask.of_model(model, index)
    assert torch.equal(mask.tensors()["in_proj_weight_orig"], model.in_proj_weight_mask.bool())


def test_what_is_not_prunable_is_said_with_its_share():
    model = TinyGPT2()
    index = ParameterIndex.from_model(model)
    sizes = [parameter.numel() for parameter in model.parameters()]
    rest = 6 * 8 + 2 * 8 + (24 + 8 + 32 + 8)
    assert sum(sizes) == index.total + rest
    said = not_prunable(model, index)
    assert f"{said}" == (
        "1 other tensor (wpe), 2 normalization tensors, 4 bias vectors, "
        f"{100 * rest / sum(sizes):.1f}% of {sum(sizes):,} parameters"
    )
    assert said.matrices
    everything = ParameterIndex.from_model(model, "*")
    assert everything.total == sum(sizes)
    assert not_prunable(model, everything) is None
    embedded = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 2, bias=False))
    assert f"{not_prunable(embedded, ParameterIndex.from_model(embedded))}" == "1 embedding, 66.7% of 12 parameters"


def test_a_list_of_an_earlier_version_goes_with_its_network_only():
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 1, 8), nn.LSTM(4, 3))
    index = ParameterIndex.from_model(model)
    earlier = index.only([entry.name for entry in index if entry.kind == "layer"])
    assert all("kind" not in item for item in earlier.to_json())
    assert earlier.goes_with(model)
    assert earlier.lacking(model) == ["0.self_attn.in_proj_weight", "1.weight_ih_l0", "1.weight_hh_l0"]
    assert index.lacking(model) == []
    assert earlier.extended(model, ["*_l0", "*.in_proj_weight"]).only([e.name for e in index]) == index
    # A Linear layer has always been prunable.
    assert not earlier.only(["0.linear1.weight"]).goes_with(model)
    reordered = ParameterIndex(tuple(reversed(earlier.entries)))
    assert not reordered.goes_with(model)


def test_a_mask_stays_what_it_is_among_further_parameters():
    model = TinyGPT2()
    index = ParameterIndex.from_model(model)
    mask = Mask(index, torch.arange(index.total) % 3 > 0)
    wide = mask.within(ParameterIndex.from_model(model, "wpe"))
    assert wide.tensors()["wpe"].all()
    assert torch.equal(wide.only([entry.name for entry in index]).keep, mask.keep)


def test_a_named_vector_is_held_and_its_layer_is_trained():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    index = ParameterIndex.from_model(model, "1.weight")
    mask = Mask(index, torch.arange(index.total) < 18)
    mask.apply_(model)
    assert dead_units(index, mask.tensors()) == [[], [2, 3]]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    mask.hold(optimizer)
    model(torch.randn(8, 4)).square().sum().backward()
    model[1].bias.grad = torch.ones(4)
    optimizer.step()
    assert model[1].weight[2:].tolist() == [0, 0]
    assert (model[1].weight[:2] != 1).all()
    assert (model[1].bias != 0).all()


@pytest.mark.parametrize("kind", ["convolution", 3, None])
def test_an_unknown_kind_is_damage(kind):
    with pytest.raises(CorruptError, match="kind"):
        ParameterIndex.from_json([{"name": "w", "shape": [2], "filter_axis": 0, "kind": kind}])


def test_only_weight_normalization_has_two_parts():
    """Parameters of others may be called so, too."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.table_g, self.table_v = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, 3))

        @property
        def table(self):
            return self.table_g[:, None] * self.table_v

    assert names(Named(), "table_*") == ["table_g", "table_v", "layer.weight"]
