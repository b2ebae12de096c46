"""Hessian spectra against torch.func.hessian and closed forms."""

import numpy as np
import pytest
import torch
from small_networks import batches, images, network, pruned
from torch import nn
from torch.func import functional_call, hessian

from causalprune.analysis.flatness.samples import ParameterVector, mean_loss
from causalprune.data.tasks.classification import Classification
from causalprune.data.tasks.regression import Regression
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex


@pytest.fixture(scope="module")
def spectra():
    from causalprune.analysis.flatness.hessian import hessian_spectra

    return hessian_spectra


def exact(model, loss, samples):
    """The Hessian over all parameters, formed as a whole by automatic differentiation."""
    names, tensors = zip(*((n, p.detach()) for n, p in model.named_parameters()), strict=True)
    inputs, targets = (torch.cat(parts) for parts in zip(*samples, strict=True))
    sizes = [t.numel() for t in tensors]

    def value(flat):
        parts = [part.view(t.shape) for part, t in zip(flat.split(sizes), tensors, strict=True)]
        return loss(functional_call(model, dict(zip(names, parts, strict=True)), (inputs,)), targets)

    return hessian(value)(torch.cat([t.flatten() for t in tensors])).numpy()


@pytest.mark.parametrize(("make", "shape"), [(network, (5,)), (lambda: network(20), (5,)), (images, (1, 6, 6))])
def test_eigenvalues_are_those_of_the_exact_hessian(spectra, make, shape):
    model, samples, loss = make(), batches(shape), nn.CrossEntropyLoss()
    mask = pruned(model)
    parameters = ParameterVector(model, mask)
    found = spectra(model, Classification(), parameters, samples, count=4, tol=1e-8)
    matrix = exact(model, loss, samples)
    kept = np.ones(len(matrix), dtype=bool)
    offset = 0
    for name, parameter in model.named_parameters():
        if name in mask.tensors():
            kept[offset : offset + parameter.numel()] = mask.tensors()[name].numpy().ravel()
        offset += parameter.numel()
    assert 0 < kept.sum() < len(kept)
    for spectrum, truth in ((found["all"], matrix), (found["unpruned"], matrix[np.ix_(kept, kept)])):
        values = np.linalg.eigvalsh(truth)
        assert spectrum.dimension == len(truth)
        assert spectrum.eigenvalues == pytest.approx(values[::-1][:4], rel=1e-6)
        assert spectrum.smallest == pytest.approx(values[0], abs=0.03 * values[-1])
        assert spectrum.trace == pytest.approx(np.trace(truth), abs=max(1e-9, 4 * spectrum.trace_error))


def test_single_precision_is_enough(spectra):
    model, samples, loss = network(20), batches((5,)), nn.CrossEntropyLoss()
    truth = np.linalg.eigvalsh(exact(model, loss, samples))[::-1]
    mask = Mask.all(ParameterIndex.from_model(model))
    model.float()
    single = [(inputs.float(), targets) for inputs, targets in samples]
    found = spectra(model, Classification(), ParameterVector(model, mask), single, count=3)
    assert found["unpruned"].eigenvalues == pytest.approx(truth[:3], rel=1e-3)
    assert found["all"] is found["unpruned"]


def test_a_linear_regression_has_a_closed_form(spectra):
    torch.manual_seed(3)
    model = nn.Linear(150, 1, bias=False).double()
    inputs = torch.randn(400, 150, dtype=torch.float64) * torch.linspace(0.1, 3, 150)
    samples = [(inputs, torch.randn(400, 1, dtype=torch.float64))]
    mask = Mask.all(ParameterIndex.from_model(model))
    found = spectra(model, Regression(), ParameterVector(model, mask), samples, count=5, probes=60)["unpruned"]
    truth = np.linalg.eigvalsh(2 * (inputs.T @ inputs).numpy() / 400)
    assert found.eigenvalues == pytest.approx(truth[::-1][:5], rel=1e-3)
    assert abs(found.trace - truth.sum()) < 4 * found.trace_error < 0.2 * truth.sum()
    at, density = np.array(found.density_at), np.array(found.density)
    assert np.trapezoid(density, at) == pytest.approx(1, abs=0.05)
    assert np.trapezoid(density * at, at) == pytest.approx(truth.mean(), rel=0.2)
    # Shares of eigenvalues below their quantiles; those of one probe in 150 dimensions deviate by up to 0.06.
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(at))])
    quantiles = np.quantile(truth, [0.1, 0.25, 0.5, 0.75, 0.9])
    exact = [np.mean(truth <= q) for q in quantiles]
    assert np.interp(quantiles, at, below) == pytest.approx(exact, abs=0.08)
    # A flat density of the same range is far from it.
    assert np.abs(quantiles / truth[-1] - exact).max() > 0.3


def test_the_random_numbers_of_others_are_left_alone(spectra):
    model, samples = network(20), batches((5,))
    parameters = ParameterVector(model, Mask.all(ParameterIndex.from_model(model)))
    before = torch.random.get_rng_state()
    first = spectra(model, Classification(), parameters, samples, count=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert spectra(model, Classification(), parameters, samples, count=2) == first


class Decayed(Classification):
    """A task with a loss of its own."""

    def loss(self, model, batch):
        return super().loss(model, batch) + sum(p.square().sum() for p in model.parameters()) / 2


def test_a_loss_of_ones_own_is_the_one_that_is_measured(spectra):
    """The Hessian of ½‖θ‖² is the identity."""
    model, samples = network(), batches((5,))
    parameters = ParameterVector(model, Mask.all(ParameterIndex.from_model(model)))
    plain, other = (spectra(model, task, parameters, samples, count=3)["all"] for task in (Classification(), Decayed()))
    assert other.eigenvalues == pytest.approx([value + 1 for value in plain.eigenvalues], rel=1e-6)
    assert mean_loss(model, Decayed(), samples) > mean_loss(model, Classification(), samples)


@pytest.mark.cuda
def test_eigenvalues_on_a_gpu_are_those_of_the_cpu(spectra):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    found = []
    for device in ("cpu", "cuda"):
        model = images().float()
        mask = pruned(model)
        model.to(device)
        samples = [(x.float().to(device), t.to(device)) for x, t in batches((1, 6, 6))]
        found.append(spectra(model, Classification(), ParameterVector(model, mask), samples, count=4))
    for name in ("all", "unpruned"):
        assert found[1][name].eigenvalues == pytest.approx(found[0][name].eigenvalues, rel=1e-3)
