"""Hessian spectra against torch.func.hessian and closed forms; noise and landscape against their definitions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from causalprune_cli.main import main
from torch import nn
from torch.func import functional_call, hessian

from causalprune.analysis.flatness.landscape import filter_normalized_direction, loss_landscape, plot_landscape
from causalprune.analysis.flatness.noise import SIGMAS, noise_tolerance
from causalprune.analysis.flatness.samples import ParameterVector, mean_loss
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex


@pytest.fixture(scope="module")
def spectra():
    from causalprune.analysis.flatness.hessian import hessian_spectra

    return hessian_spectra


def network(hidden=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, 3)).double().eval()


def images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout())
    model.append(nn.Linear(16, 3))
    return model.double().eval()


def batches(shape, sizes=(7, 4), classes=3):
    random = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, *shape, generator=random, dtype=torch.float64),
            torch.randint(classes, (n,), generator=random),
        )
        for n in sizes
    ]


def pruned(model, share=0.4):
    """A mask of random weights, applied."""
    index = ParameterIndex.from_model(model)
    keep = torch.rand(index.total, generator=torch.Generator().manual_seed(2)) > share
    mask = Mask(index, keep)
    mask.apply_(model)
    return mask


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
    found = spectra(model, loss, parameters, samples, count=4, tol=1e-8)
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
    found = spectra(model, loss, ParameterVector(model, mask), single, count=3)
    assert found["unpruned"].eigenvalues == pytest.approx(truth[:3], rel=1e-3)
    assert found["all"] is found["unpruned"]


def test_a_linear_regression_has_a_closed_form(spectra):
    torch.manual_seed(3)
    model = nn.Linear(150, 1, bias=False).double()
    inputs = torch.randn(400, 150, dtype=torch.float64) * torch.linspace(0.1, 3, 150)
    samples = [(inputs, torch.randn(400, 1, dtype=torch.float64))]
    mask = Mask.all(ParameterIndex.from_model(model))
    found = spectra(model, nn.MSELoss(), ParameterVector(model, mask), samples, count=5, probes=60)["unpruned"]
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
    first = spectra(model, nn.CrossEntropyLoss(), parameters, samples, count=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert spectra(model, nn.CrossEntropyLoss(), parameters, samples, count=2) == first


def test_noise_leaves_pruned_weights_at_zero_and_the_network_as_it_was():
    model, samples, loss = network(), batches((5,)), nn.CrossEntropyLoss()
    mask = pruned(model)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    seen = []

    def watch(_, inputs):
        del inputs
        seen.append(all(not model.get_parameter(n)[~keep].any() for n, keep in mask.tensors().items()))

    model.register_forward_pre_hook(watch)
    found = noise_tolerance(model, loss, ParameterVector(model, mask), samples, draws=3)
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
    found = noise_tolerance(model, nn.MSELoss(), parameters, samples, draws=40)
    trace = 2 * float((inputs**2).sum()) / 500
    rise = found["loss"] * (found["mean"][-1] - 1)
    assert rise == pytest.approx(0.1**2 * trace / 2, rel=0.1)


def test_a_direction_has_the_filters_lengths_and_no_pruned_part():
    model = images()
    mask = pruned(model)
    parameters = ParameterVector(model, mask)
    names = [name for name, _ in model.named_parameters()]
    direction = dict(zip(names, filter_normalized_direction(parameters, seed=0), strict=True))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert not direction[name].any()
            continue
        assert torch.allclose(direction[name].flatten(1).norm(dim=1), parameter.flatten(1).norm(dim=1))
        assert not direction[name][~mask.tensors()[name]].any()


def test_the_middle_of_a_landscape_is_the_network(tmp_path):
    model, samples, loss = network(), batches((5,)), nn.CrossEntropyLoss()
    parameters = ParameterVector(model, pruned(model))
    before = [p.detach().clone() for p in parameters.tensors]
    found = loss_landscape(model, loss, parameters, samples, points=5)
    assert all(torch.equal(p, q) for p, q in zip(parameters.tensors, before, strict=True))
    assert found["axis"] == [-1, -0.5, 0, 0.5, 1]
    assert found["loss"][2][2] == pytest.approx(mean_loss(model, loss, samples))
    parameters.move(before, (1.0, filter_normalized_direction(parameters, seed=_key("u"))))
    assert found["loss"][2][4] == pytest.approx(mean_loss(model, loss, samples))
    pytest.importorskip("matplotlib")
    plot_landscape(found, "title", tmp_path / "slice.png")
    assert (tmp_path / "slice.png").read_bytes().startswith(b"\x89PNG")


def _key(name):
    from causalprune.base.runtime import keyed_seed

    return keyed_seed(0, name)


def test_the_mean_is_over_samples_however_they_are_batched():
    model, samples, loss = network(), batches((5,)), nn.CrossEntropyLoss()
    inputs, targets = (torch.cat(parts) for parts in zip(*samples, strict=True))
    assert mean_loss(model, loss, samples) == pytest.approx(loss(model(inputs), targets).item())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("flatness")
    model = ["--model", "mlp", "--hidden", "12", "--dataset", "breast-cancer"]
    for stage in (
        ["pretrain", *model, "--epochs", "1"],
        ["apply-mask", "--checkpoint", run / "pretrained.safetensors", "--criterion", "magnitude", "--sparsity", "0.8"],
    ):
        assert main([*map(str, stage), "--run", str(run), "--quiet"]) == 0
    return run


def test_evaluate_measures_what_it_is_asked_for(run, capsys):
    pytest.importorskip("matplotlib")
    pruned_network = ["--checkpoint", run / "pruned.safetensors", "--samples", "50", "--run", run, "--quiet", "--json"]
    asked = ["--hessian", "2", "--noise", "--draws", "2", "--landscape", "--landscape-points", "3"]
    capsys.readouterr()
    assert main([str(a) for a in ["evaluate", *asked, "--flatness-split", "validation", *pruned_network]]) == 0
    result = json.loads(capsys.readouterr().out)
    found = result["metrics"]["evaluation"]
    # A tenth of the 455 training samples is held out for validation.
    assert (found["flatness_samples"], found["flatness_split"]) == (46, "validation")
    assert found["hessian"]["all"]["dimension"] == found["parameters_total"]
    assert found["hessian"]["unpruned"]["dimension"] == found["parameters_nonzero"]
    assert len(found["hessian"]["all"]["eigenvalues"]) == 2
    assert found["noise"]["loss"] == pytest.approx(found["landscape"]["loss"][1][1])
    assert Path(result["outputs"]["landscape"]).stat().st_size > 1000
    assert main([str(a) for a in ["evaluate", *pruned_network]]) == 0
    assert "hessian" not in json.loads(capsys.readouterr().out)["metrics"]["evaluation"]


@pytest.mark.parametrize(
    "options", [["--hessian", "-1"], ["--landscape-points", "4"], ["--samples", "0"], ["--flatness-split", "train"]]
)
def test_what_can_not_be_measured(run, options, capsys):
    assert main(["evaluate", *options, "--run", str(run), "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_extra_is_named(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    arguments = ["evaluate", "--hessian", "1", "--checkpoint", str(run / "pruned.safetensors"), "--run", str(run)]
    assert main([*arguments, "--quiet"]) == 2
    assert "causalprune[flatness]" in capsys.readouterr().err
