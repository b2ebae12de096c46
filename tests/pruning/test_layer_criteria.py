"""Criteria of measured layers: against exhaustive search, products with a weight removed, and SciPy's ranks."""

import numpy as np
import pytest
import torch
from torch import nn

from causalprune.data.tasks.classification import Classification
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import CriterionInputs
from causalprune.pruning.layer_statistics import LayerStatistics, layer_statistics


def score(name, model, statistics, keep=None):
    index = ParameterIndex.from_model(model)
    mask = Mask.all(index) if keep is None else Mask.from_numpy(index, keep)
    theta = index.flatten(model.state_dict()).numpy()
    return load_criterion(name).score(CriterionInputs(theta=theta, mask=mask, layers=statistics)).primary


def measure(model, x):
    return layer_statistics(model, ParameterIndex.from_model(model), [x], Classification().drawn_loss)


def test_the_first_removal_is_that_of_an_exhaustive_search():
    """For each weight: the least rise of the quadratic loss over all values of the unit's other weights."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False)
    rng = np.random.default_rng(0)
    half = rng.normal(size=(50, 6))
    gram, gradients = half.T @ half / 50, rng.random(4)
    values = (gram, np.diag(gram).copy(), gradients, np.zeros(6))
    statistics = {"weight": LayerStatistics(*(torch.from_numpy(a)[None] for a in values))}
    keep = rng.random((4, 6)) < 0.7
    found = score("surgeon", model, statistics, keep.ravel()).reshape(4, 6)
    curvature = gram + 1e-3 * np.diag(gram).mean() * np.eye(6)
    weight = model.weight.detach().double().numpy()
    expected = np.zeros((4, 6))
    for o, k in zip(*np.nonzero(keep), strict=True):
        rest = np.flatnonzero(keep[o] & (np.arange(6) != k))
        change = np.zeros(6)
        change[k] = -weight[o, k]
        change[rest] = np.linalg.solve(curvature[np.ix_(rest, rest)], -curvature[np.ix_(rest, [k])] @ change[[k]])
        expected[o, k] = gradients[o] / 2 * change @ curvature @ change
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert found[keep].argmin() == expected[keep].argmin()


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, groups=2)])
def test_each_group_of_a_convolution_has_its_own_inputs(layer):
    """Equal weights; one input is always zero, so only its weights cost next to nothing."""
    torch.manual_seed(0)
    nn.init.ones_(layer.weight)
    model = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(20, 4, 6, 6)
    x[:, 3] = 0
    statistics = measure(model, x)
    costs = score("surgeon", model, statistics).reshape(layer.weight.shape)
    gradients = statistics["0.weight"].gradients[1].numpy()[:, None, None]
    # The last two inputs belong to the second group, with units 3 to 5.
    last = costs[2:] if isinstance(layer, nn.ConvTranspose2d) else costs[3:].swapaxes(0, 1)
    alive, dead = last / gradients
    assert dead.max() < 0.01 * alive.min()


LAYERS = {
    "linear": (nn.Linear(5, 4), (5,)),
    "convolution": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 7, 7)),
    "depthwise": (nn.Conv1d(4, 4, 3, groups=4, bias=False), (4, 9)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 5)),
}


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_wanda_is_the_change_of_the_layers_outputs_when_one_weight_goes(layer, shape):
    """‖w_j·x_j‖₂ over samples and positions is what the outputs miss, whatever the kind of layer; x has a mean."""
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    x = 2 + torch.randn(12, *shape)
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    model(x)
    found = score("wanda", model, measure(model, x))[: layer.weight.numel()]
    with torch.no_grad():
        before, weight, expected = layer(x), layer.weight.view(-1), []
        for k in range(len(weight)):
            value = weight[k].item()
            weight[k] = 0
            expected.append((layer(x) - before).norm().item() / 12**0.5)
            weight[k] = value
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_wanda_of_an_input_that_is_always_0_is_0():
    model, x = nn.Linear(3, 2), torch.tensor([[0.0, 5.0, 5.0], [0.0, 5.0, 6.0]])
    assert (score("wanda", model, measure(model, x)).reshape(2, 3) == 0).tolist() == [[True, False, False]] * 2


def ranks_by_counting(values):
    return (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) + 1) / 2


def test_the_sum_of_ranks_counts_the_kept_weights_of_all_layers():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(50, 6)
    keep = np.random.default_rng(1).random(72) < 0.7
    with torch.no_grad():
        model[0].weight.view(-1)[:10] = 0.25
    statistics = measure(model, x)
    index = ParameterIndex.from_model(model)
    theta = index.flatten(model.state_dict()).numpy()[keep]
    ranks = ranks_by_counting(abs(theta)) + ranks_by_counting(score("surgeon", model, statistics, keep)[keep])
    np.testing.assert_array_equal(score("rank-sum", model, statistics, keep)[keep], ranks)
