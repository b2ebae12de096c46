from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.data.tasks.classification import Classification
from causalprune.data.tasks.regression import Regression
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.layer_statistics import PackedStatistics, layer_statistics, pack, packed_bytes

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
    # What isn't reached has no statistics; without any there is nothing to go by.
    assert list(measure(Unused(), [torch.randn(4, 5)])) == ["used.weight"]
    idle = Unused()
    idle.used = nn.Bilinear(5, 5, 3)
    idle.used.forward = lambda x: x[:, :3] * idle.used.bias
    with pytest.raises(MismatchError, match=r"layer unused\.weight: expected to be reached"):
        measure(idle, [torch.randn(4, 5)])


def test_means_positions_and_the_bias_are_those_of_the_layer():
    torch.manual_seed(0)
    conv, plain = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 4, bias=False)
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), plain)
    x = torch.randn(10, 2, 6, 5) + 3
    found = measure(model, x.split(4))
    patches = functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 18).double()
    torch.testing.assert_close(found["0.weight"].means[0], patches.mean(0), rtol=1e-5, atol=1e-5)
    pooled = model[:3](x).detach().double()
    torch.testing.assert_close(found["3.weight"].means[0], pooled.mean(0), rtol=1e-5, atol=1e-5)
    assert (found["0.weight"].positions, found["3.weight"].positions) == (30, 1)
    assert (found["0.weight"].bias, found["3.weight"].bias) == ("0.bias", None)


def test_a_weight_that_is_used_twice_has_a_bias_if_it_is_the_same_one():
    class Twice(nn.Module):
        def __init__(self, *order):
            super().__init__()
            self.order = order
            self.layer, self.other = nn.Linear(5, 5), nn.Parameter(torch.ones(5))

        def forward(self, x):
            uses = [self.layer, partial(functional.linear, weight=self.layer.weight, bias=self.other)]
            uses += [partial(functional.linear, weight=self.layer.weight)]
            first, second = self.order
            return uses[second](uses[first](x))

    for *order, expected in ((0, 1, ""), (0, 0, "layer.bias"), (0, 2, ""), (2, 0, None), (2, 2, None)):
        found = measure(Twice(*order), [torch.randn(8, 5)])["layer.weight"]
        assert (found.bias, found.positions) == (expected, 2)


@pytest.fixture
def grouped():
    """Statistics of a grouped convolution and two linear layers, and the parameters that they are of."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 5), nn.Linear(5, 3, bias=False))
    return measure(model, [torch.randn(30, 4, 4, 4)]), ParameterIndex.from_model(model)


def test_what_is_packed_is_unpacked_but_for_the_rounding_of_g(grouped):
    statistics, index = grouped
    arrays, layers = pack(statistics)
    found = PackedStatistics(arrays, layers, index, "here")
    assert list(found) == list(statistics)
    for name, one in statistics.items():
        other = found[name]
        assert (other.positions, other.bias) == (one.positions, one.bias)
        for vector in ("squares", "gradients", "means"):
            assert torch.equal(getattr(other, vector), getattr(one, vector))
        assert torch.equal(other.inputs, other.inputs.mT)
        assert torch.equal(other.inputs.triu(), one.inputs.triu().float().double())
        # Products of float32 aren't symmetric to the last digit.
        deviations = one.inputs.diagonal(dim1=1, dim2=2).sqrt()
        product = deviations[:, :, None] * deviations[:, None]
        assert ((other.inputs - one.inputs).abs() <= 1e-6 * product).all()
    assert packed_bytes(statistics) == sum(values.nbytes for values in arrays.values())


def test_arrays_that_do_not_belong_to_the_parameters_are_refused(grouped):
    statistics, index = grouped
    arrays, layers = pack(statistics)
    shorter = arrays | {"means": arrays["means"][:-1]}
    renamed = [{**layer, "name": f"x{layer['name']}"} for layer in layers]
    for some, described in ((shorter, layers), (arrays, renamed), (arrays, layers[:-1]), (arrays, None), ({}, layers)):
        with pytest.raises(CorruptError, match="here: expected statistics of the store's layers"):
            PackedStatistics(some, described, index, "here")
