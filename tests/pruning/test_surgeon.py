import numpy as np
import pytest
import torch
from torch import nn

from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import CriterionInputs, MeasuredLayers
from causalprune.pruning.layer_statistics import LayerStatistics, layer_statistics


def score(model, statistics, keep=None):
    index = ParameterIndex.from_model(model)
    keep = np.ones(index.total, bool) if keep is None else keep
    theta = index.flatten(model.state_dict()).numpy()
    inputs = CriterionInputs(theta=theta, layers=MeasuredLayers(index, keep, statistics))
    return load_criterion("surgeon").score(inputs).primary


def test_the_first_removal_is_that_of_an_exhaustive_search():
    """For each weight: the least rise of the quadratic loss over all values of the unit's other weights."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False)
    rng = np.random.default_rng(0)
    half = rng.normal(size=(50, 6))
    gram, gradients = half.T @ half / 50, rng.random(4)
    statistics = {"weight": LayerStatistics(torch.from_numpy(gram)[None], torch.from_numpy(gradients)[None])}
    keep = rng.random((4, 6)) < 0.7
    found = score(model, statistics, keep.ravel()).reshape(4, 6)
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
    statistics = layer_statistics(model, ParameterIndex.from_model(model), [x], "classification")
    costs = score(model, statistics).reshape(layer.weight.shape)
    gradients = statistics["0.weight"].gradients[1].numpy()[:, None, None]
    # The last two inputs belong to the second group, with units 3 to 5.
    last = costs[2:] if isinstance(layer, nn.ConvTranspose2d) else costs[3:].swapaxes(0, 1)
    alive, dead = last / gradients
    assert dead.max() < 0.01 * alive.min()
