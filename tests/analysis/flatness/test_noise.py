"""Noise tolerance against its definition and a closed form."""

import pytest
import torch
from small_networks import batches, network, pruned
from torch import nn

from causalprune.analysis.flatness.landscape import SIGMAS, noise_tolerance
from causalprune.analysis.flatness.samples import ParameterVector
from causalprune.data.tasks.classification import Classification
from causalprune.data.tasks.regression import Regression
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex


def test_noise_leaves_pruned_weights_at_zero_and_the_network_as_it_was():
    model, samples, task = network(), batches((5,)), Classification()
    mask = pruned(model)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    seen = []

    def watch(_, inputs):
        del inputs
        seen.append(all(not model.get_parameter(n)[~keep].any() for n, keep in mask.tensors().items()))

    model.register_forward_pre_hook(watch)
    found = noise_tolerance(model, task, ParameterVector(model, mask), samples, draws=3)
    assert all(seen)
    assert len(seen) == len(samples) * (1 + 3 * len(SIGMAS))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert found["mean"][0] == pytest.approx(1, abs=1e-3)
    assert found["std"][-1] > found["std"][0]


def test_noise_on_a_quadratic_raises_the_loss_by_its_trace():
    """E[L(θ + σz)] − L(θ) = σ²·tr(H)/2, exactly, where L is quadratic."""
    torch.manual_seed(4)
    model = nn.Linear(300, 1, bias=False).double()
    inputs = torch.randn(500, 300, dtype=torch.float64)
    samples = [(inputs, torch.randn(500, 1, dtype=torch.float64))]
    parameters = ParameterVector(model, Mask.all(ParameterIndex.from_model(model)))
    found = noise_tolerance(model, Regression(), parameters, samples, draws=40)
    trace = 2 * float((inputs**2).sum()) / 500
    rise = found["loss"] * (found["mean"][-1] - 1)
    assert rise == pytest.approx(0.1**2 * trace / 2, rel=0.1)
