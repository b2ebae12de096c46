"""What is measured and solved on a device is what the CPU finds, and is computed there."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from causalprune.data.tasks.classification import Classification
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import CriterionInputs
from causalprune.pruning.layer_statistics import layer_statistics
from causalprune.pruning.network.repair import repair
from causalprune.pruning.reconstruction import reconstruct_layers


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return "cuda"


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mask():
    index = ParameterIndex.from_model(network())
    return Mask(index, torch.rand(index.total, generator=torch.Generator().manual_seed(2)) < 0.5)


@pytest.fixture(scope="module")
def statistics(images, mask):
    return measured(images, mask, "cpu")


def measured(images, mask, device):
    found = layer_statistics(network().to(device), mask.index, [images.to(device)], Classification().drawn_loss)
    return {name: layer.to("cpu") for name, layer in found.items()}


def scores(name, mask, statistics, device):
    theta = mask.index.flatten(network().state_dict()).numpy()
    inputs = CriterionInputs(theta=theta, mask=mask, layers=statistics, device=device)
    return load_criterion(name).score(inputs).primary


def pruned(mask, device):
    dense = network().to(device)
    model = copy.deepcopy(dense)
    mask.apply_(model)
    return model, dense


@pytest.mark.parametrize("name", ["surgeon", "wanda"])
def test_scores_are_computed_on_the_device(name, mask, statistics):
    """On one whose tensors have no values nothing comes back."""
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        scores(name, mask, statistics, "meta")


def test_a_reconstruction_is_solved_on_the_device(mask, statistics):
    model, dense = pruned(mask, "meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        next(iter(reconstruct_layers(model, dense, mask, statistics)))


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["surgeon", "wanda"])
def test_scores_are_those_of_the_cpu(name, mask, statistics, gpu):
    found, truth = (scores(name, mask, statistics, device) for device in (gpu, "cpu"))
    np.testing.assert_allclose(found, truth, rtol=1e-8)


@pytest.mark.cuda
def test_statistics_are_those_of_the_cpu_though_the_user_allows_tensorfloat(images, mask, statistics, gpu):
    torch.set_float32_matmul_precision("high")
    try:
        found = measured(images, mask, gpu)
    finally:
        torch.set_float32_matmul_precision("highest")
    for name, truth in statistics.items():
        scale = truth.inputs.diagonal(dim1=1, dim2=2).max().item()
        np.testing.assert_allclose(found[name].inputs, truth.inputs, rtol=1e-4, atol=1e-6 * scale)


@pytest.mark.cuda
@pytest.mark.parametrize("way", ["from samples", "from statistics"])
def test_repaired_weights_are_those_of_the_cpu(way, images, mask, statistics, gpu):
    found = []
    for device in (gpu, "cpu"):
        model, dense = pruned(mask, device)
        if way == "from samples":
            layers = repair(model, mask, dense=dense, inputs=images)
        else:
            layers = list(reconstruct_layers(model, dense, mask, statistics))
        found.append((model.cpu().state_dict(), layers))
    for name, truth in found[1][0].items():
        np.testing.assert_allclose(found[0][0][name], truth, rtol=1e-3, atol=1e-3 * truth.abs().max().item())
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert ours.name == theirs.name
        assert ours.after == pytest.approx(theirs.after, rel=1e-2, abs=1e-6)
