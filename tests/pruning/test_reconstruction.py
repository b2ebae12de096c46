"""Repair from the second moments of the dense network's inputs, against least squares over those inputs themselves."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from causalprune.base.errors import DataError, MismatchError, NumericalError
from causalprune.data.tasks.classification import Classification
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.layer_statistics import layer_statistics
from causalprune.pruning.reconstruction import reconstruct_layers
from causalprune.pruning.repair import repair_layers

RIDGE = 1e-3


def pruned(dense, kept=0.5, seed=0):
    """A copy of which random weights are pruned, and the mask."""
    index = ParameterIndex.from_model(dense)
    keep = torch.rand(index.total, generator=torch.Generator().manual_seed(seed)) < kept
    model, mask = copy.deepcopy(dense), Mask(index, keep)
    mask.apply_(model)
    return model, mask


def measured(dense, *batches, seed=0):
    return layer_statistics(dense, ParameterIndex.from_model(dense), batches, Classification().drawn_loss, seed=seed)


def ridge_regression(u, y, prior, keep):
    """w and b of one output: augmented least squares by NumPy over all rows, with b free and w = 0 where not kept."""
    scale = RIDGE * np.square(u - u.mean(0)).sum(0).mean()
    rows = np.concatenate([np.c_[u[:, keep], np.ones(len(u))], np.sqrt(scale) * np.eye(keep.sum(), keep.sum() + 1)])
    target = np.concatenate([y, np.sqrt(scale) * prior[keep]])
    found = np.linalg.lstsq(rows, target, rcond=None)[0]
    weights = np.zeros(len(keep))
    weights[keep] = found[:-1]
    return weights, found[-1]


def test_a_linear_layer_is_ridge_regression_on_the_dense_networks_inputs():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 5))
    x = torch.randn(60, 7) + 2
    model, mask = pruned(dense)
    before = copy.deepcopy(model)
    found = list(reconstruct_layers(model, dense, mask, measured(dense, x), ridge=RIDGE))
    inputs = {"0": x, "2": dense[:2](x)}
    for layer, repaired in zip(("0", "2"), found, strict=True):
        u = inputs[layer].detach().double().numpy()
        y = dense[int(layer)](inputs[layer]).detach().double().numpy()
        keep = mask.tensors()[f"{layer}.weight"].numpy()
        prior = before[int(layer)].weight.detach().double().numpy()
        expected = [ridge_regression(u, y[:, o], prior[o], keep[o]) for o in range(len(keep))]
        new = model[int(layer)]
        assert not new.weight.detach().numpy()[~keep].any()
        np.testing.assert_allclose(new.weight.detach(), [w for w, _ in expected], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(new.bias.detach(), [b for _, b in expected], rtol=1e-3, atol=1e-3)
        # What the layer misses is what one counts on the inputs themselves.
        spread = np.square(y - y.mean(0)).sum()
        for share, network in ((repaired.before, before), (repaired.after, model)):
            outputs = network[int(layer)](inputs[layer]).detach().double().numpy()
            assert share == pytest.approx(np.square(y - outputs).sum() / spread, rel=1e-3)
        assert repaired.after < repaired.before


def test_the_first_layer_is_repaired_as_from_samples_and_the_next_one_worse():
    """The pruned network's inputs of the first layer are the dense one's; afterwards errors add up."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    dense = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 6))
    x = torch.randn(400, 3, 6, 6)
    dense.train()
    dense(x)
    dense.eval()
    networks = {}
    for how in ("statistics", "samples"):
        model, mask = pruned(dense)
        # As after a training between the mask and the repair.
        model[1].running_mean.fill_(9)
        if how == "statistics":
            list(reconstruct_layers(model, dense, mask, measured(dense, *x.split(150))))
        else:
            list(repair_layers(model, dense, mask, x.split(150)))
        networks[how] = model.eval()
        assert torch.equal(model[1].running_mean, dense[1].running_mean)
    torch.testing.assert_close(networks["statistics"][0].weight, networks["samples"][0].weight, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        error = {how: (model(x) - dense(x)).square().sum() for how, model in networks.items()}
        model, _ = pruned(dense)
        assert error["samples"] < error["statistics"] < (model(x) - dense(x)).square().sum()


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, stride=2)])
def test_grouped_and_transposed_convolutions_are_those_of_the_repair_from_samples(layer):
    torch.manual_seed(1)
    dense, x = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.randn(80, 4, 6, 6) + 1
    results = []
    for repair in (
        lambda model, mask: reconstruct_layers(model, dense, mask, measured(dense, x)),
        lambda model, mask: repair_layers(model, dense, mask, [x]),
    ):
        model, mask = pruned(dense)
        (repaired,) = repair(model, mask)
        results.append((repaired, model[0]))
    (one, first), (other, second) = results
    assert one.before == pytest.approx(other.before, rel=1e-3)
    assert one.after == pytest.approx(other.after, rel=1e-3)
    torch.testing.assert_close(first.weight, second.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(first.bias, second.bias, rtol=1e-3, atol=1e-4)


def test_a_bias_that_is_no_parameter_stays_and_the_weights_are_fitted_without_it():
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4, bias=False)
            self.register_buffer("offset", torch.arange(4.0))

        def forward(self, x):
            return functional.linear(x, self.layer.weight, self.offset)

    torch.manual_seed(0)
    dense, x = Offset(), torch.randn(50, 6) + 1
    results = []
    for repair in (
        lambda model, mask: reconstruct_layers(model, dense, mask, measured(dense, x)),
        lambda model, mask: repair_layers(model, dense, mask, [x]),
    ):
        model, mask = pruned(dense)
        list(repair(model, mask))
        results.append(model.layer.weight)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)


def test_what_does_not_belong_together_is_refused():
    torch.manual_seed(0)
    dense, x = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)), torch.randn(20, 5)
    statistics = measured(dense, x)
    model, mask = pruned(dense)
    with pytest.raises(MismatchError, match=r"those of layer 1\.weight"):
        list(reconstruct_layers(model, dense, mask, {"0.weight": statistics["0.weight"]}, names=["1.weight"]))
    # Of several layers, those that nothing is known of stay as they are.
    before = model[1].weight.clone()
    (only,) = reconstruct_layers(model, dense, mask, {"0.weight": statistics["0.weight"]})
    assert only.name == "0.weight"
    assert torch.equal(model[1].weight, before)
    other = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    with pytest.raises(MismatchError, match=r"0\.weight of the dense network"):
        list(reconstruct_layers(model, other, mask, statistics))
    statistics["0.weight"].inputs.fill_(float("nan"))
    with pytest.raises(DataError, match="finite"):
        list(reconstruct_layers(model, dense, mask, statistics))


def test_without_a_penalty_too_few_samples_are_refused():
    torch.manual_seed(0)
    dense = nn.Linear(30, 3)
    model, mask = pruned(dense, kept=0.9)
    with pytest.raises(NumericalError, match="larger `ridge`"):
        list(reconstruct_layers(model, dense, mask, measured(dense, torch.randn(5, 30)), ridge=0))
