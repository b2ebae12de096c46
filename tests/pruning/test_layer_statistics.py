import pytest
import torch
from torch import nn
from torch.nn import functional

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError, MismatchError
from causalprune.data.tasks.classification import Classification
from causalprune.data.tasks.regression import Regression
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.layer_statistics import layer_statistics

CLASSES = Classification()


def measure(model, batches, task=CLASSES, seed=0):
    return layer_statistics(model, ParameterIndex.from_model(model), batches, task.drawn_loss, seed=seed)


def test_moments_and_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)), torch.randn(40, 5)
    found = measure(model, x.split(16))
    hidden = model[0](x).detach()
    torch.testing.assert_close(found["0.weight"].inputs[0], torch.cov(x.T, correction=0).double(), rtol=1e-4, atol=1e-5)
    relu = hidden.relu().double()
    torch.testing.assert_close(found["2.weight"].inputs[0], relu.T @ relu / 40, rtol=1e-4, atol=1e-5)

    for name, inputs in (("0.weight", x.double()), ("2.weight", relu)):
        torch.testing.assert_close(found[name].squares[0], inputs.square().mean(0), rtol=1e-4, atol=1e-5)

    generator = torch.Generator().manual_seed(keyed_seed(0, "labels"))
    squares = []
    for part in x.split(16):
        first = model[0](part)
        logits = model[2](first.relu())
        chances = 0.9 * logits.detach().double().softmax(1) + 0.1 / 3
        labels = torch.multinomial(chances, 1, generator=generator)[:, 0]
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        squares.append([g.double().square() for g in torch.autograd.grad(loss, [first, logits])])
    for name, parts in zip(("0.weight", "2.weight"), zip(*squares, strict=True), strict=True):
        torch.testing.assert_close(found[name].gradients[0], torch.cat(parts).mean(0), rtol=1e-4, atol=1e-9)


def test_a_convolution_sums_over_its_positions():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(2, 3, 3, padding=1, bias=False), torch.randn(10, 2, 6, 6)
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = measure(model, [x])["0.weight"]
    patches = functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 18).double()
    torch.testing.assert_close(found.inputs[0], patches.T @ patches / 10, rtol=1e-4, atol=1e-4)
    assert found.gradients.shape == (1, 3)


def test_a_network_that_is_sure_of_every_sample_has_gradients_for_all_classes():
    model, x = nn.Linear(2, 4), torch.randn(500, 2)
    nn.init.constant_(model.weight, 0)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([50.0, 0, 0, 0]))
    assert (measure(model, [x])["weight"].gradients > 0.01).all()


def test_a_regression_draws_its_targets():
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(4000, 4)
    # The loss is half the squared error of a target of variance 1, so its gradient has variance 1.
    assert measure(model, x.split(500), Regression())["weight"].gradients.item() == pytest.approx(1, rel=0.1)


def test_the_network_and_its_gradients_are_left_alone():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3)), torch.randn(20, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = measure(model, [x]), measure(model, [x])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(first["3.weight"].gradients, second["3.weight"].gradients)
    assert not torch.equal(first["3.weight"].gradients, measure(model, [x], seed=1)["3.weight"].gradients)


def test_what_cannot_be_measured_is_refused():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(DataError, match="at least one batch"):
        measure(nn.Linear(5, 3), [])
    with pytest.raises(MismatchError, match=r"layer unused\.weight: expected to be reached"):
        measure(Unused(), [torch.randn(4, 5)])
