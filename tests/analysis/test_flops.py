"""Floating-point operations, counted by hand: a multiply-add is two."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from causalprune.analysis.flops import flops
from causalprune.models.parameters import ParameterIndex


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 25, 4)
    )


def test_dense_operations_have_a_closed_form():
    assert flops(small_net(), (2, 5, 5)).dense == 2 * (3 * 2 * 9 * 25) + 2 * (75 * 4)


def test_pruned_operations_equal_a_count_weight_by_weight():
    model = small_net()
    keep = {"0.weight": torch.rand(3, 2, 3, 3) < 0.4, "4.weight": torch.rand(4, 75) < 0.3}
    # Every weight of the convolution is used at 25 positions, every weight of the linear layer once.
    expected = 2 * (25 * int(keep["0.weight"].sum()) + int(keep["4.weight"].sum()))
    assert flops(model, (2, 5, 5), keep).theoretical == expected


def test_a_network_that_needs_two_samples_is_counted_for_one():
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3, track_running_stats=False))
    keep = {"0.weight": torch.arange(15).view(3, 5) < 4}
    found = flops(model, (5,), keep)
    assert (found.dense, found.theoretical) == (2 * 15, 2 * 4)


def test_the_model_stays_as_it_was():
    model = small_net().train()
    model[1].eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    flops(model, (2, 5, 5))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [m.training for m in model] == [True, False, True, True, True]


class Shared(nn.Module):
    """One weight in two modules, one of which has two names and runs three times."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4, bias=False))
        self.alias = self.block[0]
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.alias.weight

    def forward(self, inputs):
        return self.tied(self.alias(self.block(self.block(inputs))))


def test_every_use_of_a_shared_weight_is_skipped():
    model = Shared()
    (entry,) = ParameterIndex.from_model(model)
    keep = {entry.name: torch.eye(4, dtype=torch.bool)}
    result = flops(model, (4,), keep)
    assert (result.dense, result.theoretical) == (4 * 2 * 16, 4 * 2 * 4)


class Function(nn.Module):
    """Calls a function with its layers and the input."""

    def __init__(self, function, *layers):
        super().__init__()
        self.layers, self.function, self.one = nn.ModuleList(layers), function, nn.Parameter(torch.ones(1))

    def forward(self, inputs):
        return self.function(*self.layers, inputs)


ENCODER = 8 * 2 * (4 * 8 * 8 + 2 * 8 * 32) + 2 * 2 * 8 * 8 * 8
"""Eight tokens of eight features: four projections, two layers of 32 units, and the attention's two products."""
ATTENTION = 8 * 2 * 4 * 8 * 8 + 2 * 2 * 8 * 8 * 8


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.LSTM(8, 16, 2, batch_first=True), 8 * 2 * (64 * (8 + 16) + 64 * (16 + 16))),
        (nn.LSTM(8, 16, bidirectional=True, batch_first=True), 2 * 8 * 2 * 64 * (8 + 16)),
        (nn.LSTM(8, 16, proj_size=4, batch_first=True), 8 * 2 * (64 * 8 + 64 * 4 + 16 * 4)),
        (nn.GRU(8, 16, batch_first=True), 8 * 2 * 48 * (8 + 16)),
        (nn.RNN(8, 16, batch_first=True), 8 * 2 * 16 * (8 + 16)),
        (nn.TransformerEncoderLayer(8, 2, 32, batch_first=True), ENCODER),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 32, batch_first=True), 2), 2 * ENCODER),
        (Function(lambda a, x: a(x, x, x), nn.MultiheadAttention(8, 2, batch_first=True)), ATTENTION),
        (Function(lambda x: functional.scaled_dot_product_attention(x, x, x)), 2 * 2 * 8 * 8 * 8),
        (Function(lambda x: x[0] @ x[0, 0]), 2 * 8 * 8),
        (Function(lambda x: torch.zeros(8, 8).addmm_(x[0], x[0])), 2 * 8 * 8 * 8),
        (Function(lambda x: torch.einsum("bij,bkj->bik", x, x)), 2 * 8 * 8 * 8),
        (Function(lambda x: functional.normalize(torch.lgamma(x + 1))), 0),
        (torch.compile(nn.Linear(8, 4), backend="eager"), 8 * 2 * 8 * 4),
    ],
    ids=lambda value: getattr(value, "_get_name", lambda: "")(),
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_layers_of_sequences_have_a_closed_form(model, expected):
    found = flops(model, (8, 8))
    assert (found.dense, found.theoretical, found.uncounted) == (expected, expected, ())


def test_fused_attention_is_left_as_it_was_set():
    before = torch.backends.mha.get_fastpath_enabled()
    flops(nn.TransformerEncoderLayer(8, 2, 32, batch_first=True), (8, 8))
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.fft.rfft(x), "_fft_r2c"),
        (lambda x: torch.cdist(x, x), "_cdist_forward"),
        (lambda x: functional.bilinear(x, x, torch.ones(4, 8, 8)), "_trilinear"),
        (lambda x: torch.sparse.mm(x[0].to_sparse_csr(), x[0]), "_sparse_addmm"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_what_cannot_be_counted_is_named(function, name):
    assert flops(Function(function), (8, 8)).uncounted == (name,)


def test_an_operation_of_another_library_is_named():
    ops = pytest.importorskip("torchvision.ops")
    offsets, weight = torch.zeros(1, 18, 6, 6), torch.zeros(3, 1, 3, 3)
    model = Function(lambda x: ops.deform_conv2d(x[:, None], offsets, weight))
    assert flops(model, (8, 8)).uncounted == ("torchvision::deform_conv2d",)


def test_pruned_weights_that_attention_uses_without_their_layer_are_skipped():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True)
    keep = {entry.name: torch.rand(entry.shape) < 0.4 for entry in ParameterIndex.from_model(model)}
    assert sorted(keep) == [
        "linear1.weight", "linear2.weight", "self_attn.in_proj_weight", "self_attn.out_proj.weight"
    ]  # fmt: skip
    pruned = sum(int((~mask).sum()) for mask in keep.values())
    assert flops(model, (8, 8), keep).theoretical == ENCODER - 8 * 2 * pruned


def test_a_part_of_a_weight_is_skipped_by_its_own_zeros():
    model = Function(lambda layer, x: functional.linear(x, layer.weight[2:6, :3]), nn.Linear(5, 8))
    keep = torch.ones(8, 5, dtype=torch.bool)
    keep[:4] = False
    found = flops(model, (3,), {"layers.0.weight": keep})
    assert (found.dense, found.theoretical) == (2 * 4 * 3, 2 * 2 * 3)


def test_the_layout_of_a_weight_does_not_matter():
    layer = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    model = Function(lambda layer, x: functional.conv2d(x, layer.weight[:, :2]), layer)
    keep = torch.ones(4, 3, 3, 3, dtype=torch.bool)
    keep[:, 0] = False
    found = flops(model, (2, 5, 5), {"layers.0.weight": keep})
    assert (found.dense, found.theoretical) == (2 * 4 * 2 * 9 * 9, 2 * 4 * 9 * 9)


@pytest.mark.parametrize(
    ("wrap", "uses", "more"),
    [(lambda layer: prune.identity(layer, "weight"), 1, 0), (parametrizations.spectral_norm, 2, 2 * 5)],
    ids=["torch prune", "spectral norm"],
)
def test_a_weight_that_is_computed_is_skipped_where_its_original_is_zero(wrap, uses, more):
    """Spectral normalization multiplies a vector with the weight, and the five results with another one."""
    torch.manual_seed(0)
    model = nn.Sequential(wrap(nn.Linear(6, 5)), nn.Linear(5, 4))
    keep = {entry.name: torch.rand(entry.shape) < 0.4 for entry in ParameterIndex.from_model(model)}
    first, second = (int(mask.sum()) for mask in keep.values())
    found = flops(model, (6,), keep)
    assert found.dense == 2 * uses * 30 + more + 2 * 20
    assert found.theoretical == 2 * uses * first + more + 2 * second


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.LSTM(8, 16, 2, batch_first=True), 8 * 2 * (64 * (8 + 16) + 64 * (16 + 16))),
        (nn.LSTM(8, 16, bidirectional=True, batch_first=True), 2 * 8 * 2 * 64 * (8 + 16)),
        (nn.GRU(8, 16, batch_first=True), 8 * 2 * 48 * (8 + 16)),
        (nn.TransformerEncoderLayer(8, 2, 32, batch_first=True), ENCODER),
        (Function(lambda x: functional.scaled_dot_product_attention(x, x, x)), 2 * 2 * 8 * 8 * 8),
    ],
    ids=["LSTM", "both directions", "GRU", "encoder", "attention"],
)
def test_kernels_of_a_gpu_count_the_same(model, expected):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert flops(model.cuda(), (8, 8)).dense == expected
