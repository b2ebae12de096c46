import copy

import numpy as np
import pytest
import torch
from torch import nn

from causalprune.base.errors import DataError, MismatchError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.repair import layers_to_repair, repair_layers


def prune(model, sparsity=0.5, seed=0):
    """A pruned copy of a network, and its random mask."""
    index = ParameterIndex.from_model(model)
    keep = torch.rand(index.total, generator=torch.Generator().manual_seed(seed)) >= sparsity
    mask, pruned = Mask(index, keep), copy.deepcopy(model)
    mask.apply_(pruned)
    return pruned, mask


def rms(model, dense, x):
    model.eval()
    dense.eval()
    with torch.no_grad():
        return (model(x) - dense(x)).square().mean().sqrt().item()


def test_a_linear_layer_gets_the_closed_form():
    torch.manual_seed(0)
    dense, x = nn.Linear(6, 4), torch.randn(200, 6) @ torch.randn(6, 6)
    pruned, mask = prune(dense)
    (layer,) = repair_layers(pruned, dense, mask, x.split(64), ridge=1e-8)
    u, y = x.double().numpy(), dense(x).detach().double().numpy()
    keep, missed = mask.tensors()["weight"].numpy(), 0.0
    for o in range(4):
        s = np.flatnonzero(keep[o])
        design = np.column_stack([u[:, s], np.ones(len(u))])
        solution, residual, *_ = np.linalg.lstsq(design, y[:, o], rcond=None)
        np.testing.assert_allclose(pruned.weight[o].detach()[s], solution[:-1], rtol=1e-4, atol=1e-5)
        assert pruned.bias[o].item() == pytest.approx(solution[-1], abs=1e-4)
        missed += residual.sum()
    assert layer.after == pytest.approx(missed / ((y - y.mean(0)) ** 2).sum(), rel=1e-3)
    assert not pruned.weight[~mask.tensors()["weight"]].any()


def test_the_second_layer_is_fitted_to_what_the_repaired_first_one_gives_it():
    torch.manual_seed(0)
    dense, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)), torch.randn(300, 6)
    pruned, mask = prune(dense)
    list(repair_layers(pruned, dense, mask, x.split(100), ridge=1e-8))
    with torch.no_grad():
        u, y = pruned[:2](x).double().numpy(), dense(x).double().numpy()
    keep = mask.tensors()["2.weight"].numpy()
    for o in range(3):
        s = np.flatnonzero(keep[o])
        expected = np.linalg.lstsq(u[:, s], y[:, o], rcond=None)[0]
        np.testing.assert_allclose(pruned[2].weight[o].detach()[s], expected, rtol=1e-3, atol=1e-4)


def test_pruned_inputs_that_are_redundant_cost_nothing():
    """Every input is there twice, and one of each pair is pruned: the other one takes over."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(100, 3).repeat(1, 2)
    index = ParameterIndex.from_model(dense)
    keep = torch.ones(index.total, dtype=torch.bool)
    keep[: index.entries[0].size].view(8, 6)[:, 3:] = False
    pruned, mask = copy.deepcopy(dense), Mask(index, keep)
    mask.apply_(pruned)
    before = rms(pruned, dense, x)
    list(repair_layers(pruned, dense, mask, [x], ridge=1e-6))
    assert rms(pruned, dense, x) < 1e-4 * before


class Branches(nn.Module):
    """Grouped, dilated and transposed convolutions, batch normalization, a residual and a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.grouped, self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.dilated = nn.Conv2d(16, 8, 3, stride=2, dilation=2)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = x + self.grouped(x)
        x = self.dilated(torch.cat([x, self.depthwise(x)], 1)).relu()
        return self.fc(self.up(x).mean((2, 3)))


class Loop(nn.Module):
    """A layer that is used three times."""

    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        for _ in range(3):
            x = x + self.shared(x).tanh()
        return self.last(x)


def attention():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)


NETWORKS = {
    "convolutions": (Branches, (60, 3, 12, 12)),
    "reused": (Loop, (200, 5)),
    "attention": (attention, (40, 6, 8)),
    "1d and 3d": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Unflatten(1, (1, 4)), nn.Unflatten(3, (2, 5)), nn.Conv3d(1, 4, (2, 1, 3))
        ),
        (50, 2, 12),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_comes_nearer_and_the_outputs_do(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    # Neighbors are alike, so that what is pruned can be made up for.
    dense, x = make(), torch.randn(shape).cumsum(-1)
    pruned, mask = prune(dense, 0.4)
    before = rms(pruned, dense, x)
    layers = list(repair_layers(pruned, dense, mask, x.split(16)))
    assert sorted(layer.name for layer in layers) == sorted(layers_to_repair(mask))
    for layer in layers:
        assert layer.after <= layer.before * (1 + 1e-6) + 1e-9
    assert rms(pruned, dense, x) < 0.95 * before
    for name, keep in mask.tensors().items():
        assert not pruned.get_parameter(name)[~keep].any()


def test_the_batches_make_no_difference():
    torch.manual_seed(0)
    dense, x = Branches(), torch.randn(30, 3, 12, 12)
    results = []
    for size in (30, 7):
        pruned, mask = prune(dense)
        list(repair_layers(pruned, dense, mask, x.split(size)))
        results.append(pruned.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-3, atol=1e-4)


def test_equal_arguments_give_equal_bits():
    torch.manual_seed(0)
    dense, x = Branches(), torch.randn(20, 3, 12, 12)
    first, mask = prune(dense)
    second, _ = prune(dense)
    for pruned in (first, second):
        list(repair_layers(pruned, dense, mask, x.split(8)))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_statistics_are_the_dense_networks_and_modes_are_restored():
    torch.manual_seed(0)
    dense, x = Branches(), torch.randn(20, 3, 12, 12)
    dense.train()
    dense(x)
    pruned, mask = prune(dense)
    pruned.norm.reset_running_stats()
    list(repair_layers(pruned, dense, mask, [x]))
    assert torch.equal(pruned.norm.running_mean, dense.norm.running_mean)
    assert all(module.training for module in (*pruned.modules(), *dense.modules()))
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_whose_units_before_have_lost_all_inputs_keeps_its_weights(bias):
    """Its inputs are constant, so only its bias can come nearer: to the mean of what the dense network puts out."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 8, bias=bias), nn.ReLU(), nn.Linear(8, 3, bias=bias))
    x = torch.randn(200, 6)
    index = ParameterIndex.from_model(dense)
    keep = torch.ones(index.total, dtype=torch.bool)
    keep[: index["0.weight"].stop] = False
    keep[-2:] = False
    mask, pruned = Mask(index, keep), copy.deepcopy(dense)
    mask.apply_(pruned)
    before = pruned[2].weight.detach().clone()
    assert "2.weight" in [layer.name for layer in repair_layers(pruned, dense, mask, [x])]
    torch.testing.assert_close(pruned[2].weight, before)
    if bias:
        torch.testing.assert_close(pruned(x).mean(0), dense(x).mean(0), rtol=1e-4, atol=1e-5)


def test_layers_without_pruned_weights_stay_as_they_are():
    torch.manual_seed(0)
    dense, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(50, 6)
    index = ParameterIndex.from_model(dense)
    keep = torch.ones(index.total, dtype=torch.bool)
    keep[:10] = False
    pruned, mask = copy.deepcopy(dense), Mask(index, keep)
    mask.apply_(pruned)
    assert [layer.name for layer in repair_layers(pruned, dense, mask, [x])] == ["0.weight"]
    assert torch.equal(pruned[2].weight, dense[2].weight)


def test_a_repair_goes_on_where_another_stopped():
    torch.manual_seed(0)
    dense, x = Loop(), torch.randn(50, 5)
    whole, mask = prune(dense)
    list(repair_layers(whole, dense, mask, [x]))
    parts, _ = prune(dense)
    done = next(iter(repair_layers(parts, dense, mask, [x])))
    left = [name for name in layers_to_repair(mask) if name != done.name]
    list(repair_layers(parts, dense, mask, [x], names=left))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name])


def test_what_does_not_fit_is_refused():
    dense, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(50, 6)
    pruned, mask = prune(dense)

    class Unused(nn.Sequential):
        def forward(self, x):
            return self[0](x)

    with pytest.raises(DataError, match="at least one batch"):
        list(repair_layers(pruned, dense, mask, []))
    with pytest.raises(DataError, match=r"inputs of layer 0\.weight: expected finite numbers"):
        list(repair_layers(pruned, dense, mask, [x.log()]))
    with pytest.raises(MismatchError, match=r"0\.weight of the dense network: expected shape \(8, 6\), found \(7, 6\)"):
        list(repair_layers(pruned, nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)), mask, [x]))
    with pytest.raises(MismatchError, match=r"expected a parameter 0\.weight, found none"):
        list(repair_layers(pruned, nn.Linear(6, 8), mask, [x]))
    unused = Unused(*copy.deepcopy(dense))
    with pytest.raises(MismatchError, match=r"layer 2\.weight: expected to be reached"):
        list(repair_layers(unused, dense, mask, [x], names=["2.weight"]))
    # Of several layers, those that aren't reached stay as they are.
    assert [layer.name for layer in repair_layers(unused, dense, mask, [x])] == ["0.weight"]
    assert torch.equal(unused[2].weight, dense[2].weight)
