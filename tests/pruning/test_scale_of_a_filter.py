"""Which criteria depend on the scale of a filter before BatchNorm, which means nothing.

BatchNorm divides by it: weights c·w with running mean c·μ and variance c²·σ² make the same network. Its gradients by
these weights are 1/c of the others, and its second derivatives 1/c². With powers of two for c all of this is exact.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from causalprune.data.tasks.classification import Classification
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import CriterionInputs, Scores
from causalprune.pruning.gradients import GradientMatrix
from causalprune.pruning.layer_statistics import layer_statistics
from causalprune.pruning.names import CRITERIA
from causalprune.pruning.selection import select

LR = 0.05


@pytest.fixture(scope="module")
def samples():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 2, 8, 8, generator=generator), torch.randint(4, (64,), generator=generator)


@pytest.fixture(scope="module")
def networks(samples):
    """A network in evaluation mode with the statistics of the samples, and one with other scales before BatchNorm."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    model(samples[0])
    for norm in (model[1], model[4]):
        norm.eps = 0.0
        nn.init.uniform_(norm.weight, -1, 1)
    other = copy.deepcopy(model.eval())
    with torch.no_grad():
        for conv, norm in ((other[0], other[1]), (other[3], other[4])):
            scale = 2.0 ** torch.randint(-3, 4, (8,))
            conv.weight *= scale[:, None, None, None]
            norm.running_mean *= scale
            norm.running_var *= scale**2
    return model, other


@pytest.fixture(scope="module")
def measured(networks, samples):
    return [inputs_of(model, samples) for model in networks]


def inputs_of(model, samples):
    """Everything that a criterion may read, measured as a recording of plain SGD at one learning rate has it."""
    index = ParameterIndex.from_model(model)
    mask, rows = Mask.all(index), []
    for x, y in zip(*samples, strict=True):
        model.zero_grad()
        functional.cross_entropy(model(x[None]), y[None]).backward()
        rows.append(index.flatten({entry.name: model.get_parameter(entry.name).grad for entry in index}))
    gradients = torch.stack(rows).double().numpy()
    fisher = (gradients**2).mean(0)
    return CriterionInputs(
        theta=index.flatten(model.state_dict()).numpy(),
        # −1/η + h/2, with the Fisher diagonal for h.
        gamma=-1 / LR + 2e3 * fisher,
        dual_correlation=np.ones(index.total),
        mean_squared_gradient=fisher,
        gradients=GradientMatrix.from_array(gradients),
        mask=mask,
        layers=layer_statistics(model, index, [samples[0]], Classification().drawn_loss),
        project=lambda scores: kept(Scores(scores), mask),
        learning_rate=LR,
    )


def kept(scores, mask):
    return select(scores, mask, sparsity=0.5).mask.numpy()


DEPENDS = {
    "gamma": True,
    "effect": True,
    "curvature": False,
    "magnitude": True,
    "random": False,
    "fisher": True,
    "obd": False,
    "chita": True,
    "obs": True,
    "surgeon": False,
    "rank-sum": True,
    "wanda": True,
    "lamp": True,
}


def test_the_networks_compute_the_same(networks, samples):
    model, other = networks
    assert torch.equal(model(samples[0]), other(samples[0]))


@pytest.mark.parametrize("name", CRITERIA)
def test_the_mask_depends_on_the_scale_only_with_these_criteria(measured, name):
    criterion = load_criterion(name)
    masks = [kept(criterion.score(inputs), inputs.mask) for inputs in measured]
    assert (masks[0] != masks[1]).any() == DEPENDS[name]


@pytest.mark.parametrize(("exponent", "depends"), [(1, False), (0.5, True), (0.125, True)])
@pytest.mark.parametrize("name", ["effect", "obd"])
def test_the_tempered_ones_depend_on_it_below_an_exponent_of_1(measured, name, exponent, depends):
    """γ is here one of equal steps of the function, rather than of the weights: 1/c² of the other, as g² is."""
    masks = []
    for inputs in measured:
        inputs = replace(inputs, gamma=-inputs.mean_squared_gradient, exponent=exponent)
        masks.append(kept(load_criterion(name).score(inputs), inputs.mask))
    assert (masks[0] != masks[1]).any() == depends


@pytest.mark.parametrize("name", ["magnitude", "lamp", "wanda", "rank-sum"])
def test_with_batchnorm_folded_into_the_filter_the_scale_is_gone(networks, measured, name):
    """With f = |BatchNorm's weight|/σ, w·f is what the filter does, and a gradient by what it puts out is δ/f."""
    masks = []
    for model, inputs in zip(networks, measured, strict=True):
        theta, layers = inputs.theta.copy(), dict(inputs.layers)
        for weight, norm in (("0.weight", model[1]), ("3.weight", model[4])):
            factor = (norm.weight.abs() / norm.running_var.sqrt()).detach()
            entry = inputs.mask.index[weight]
            theta[entry.offset : entry.stop] *= factor.repeat_interleave(entry.size // len(factor)).numpy()
            layers[weight] = replace(layers[weight], gradients=layers[weight].gradients / factor**2)
        folded = replace(inputs, theta=theta, layers=layers)
        masks.append(kept(load_criterion(name).score(folded), inputs.mask))
    assert np.array_equal(*masks)
