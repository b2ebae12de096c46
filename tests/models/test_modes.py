"""Modes: what measures a network leaves every module in the mode that it was in; batch normalization like new."""

import copy

import pytest
import torch
from torch import nn

from causalprune.analysis.cost import latency, peak_memory
from causalprune.analysis.flops import flops
from causalprune.models.export.programs import trace
from causalprune.models.modes import (
    averaging_layers,
    evaluation_mode,
    frozen_batch_statistics,
    least_batch,
    reset_batchnorm,
)


@pytest.fixture
def model():
    """In training but for a frozen normalization."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[1].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


def fail(model):
    assert not any(modes(model))
    raise ValueError("within")


def test_the_modes_come_back_also_after_an_error(model) -> None:
    before = modes(model)
    with pytest.raises(ValueError, match="within"), evaluation_mode(model, nn.Linear(1, 1)):
        fail(model)
    assert modes(model) == before == [True, True, False, True, True]


@pytest.mark.parametrize(
    "measure",
    [
        lambda model: latency([model], (4,), 2, seconds=0.001),
        lambda model: peak_memory(model, (4,), 2),
        lambda model: flops(model, (4,)),
        lambda model: trace(model, (4,)),
    ],
    ids=["latency", "peak_memory", "flops", "trace"],
)
def test_measuring_changes_neither_modes_nor_statistics(model, measure) -> None:
    before, tensors = modes(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model)
    assert modes(model) == before
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2), nn.BatchNorm1d(2))


def test_batchnorm_is_like_new_and_nothing_else_changes() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(6, 1, 4, 4)).square().mean().backward()
        optimizer.step()
    before = copy.deepcopy(model.state_dict())
    reset_batchnorm(model)
    new = net().state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, (new if name.startswith(("1.", "4.")) else before)[name]), name


def test_frozen_statistics_normalize_as_in_training_and_average_nothing() -> None:
    model, frozen = net().train(), copy.deepcopy(net())
    frozen.load_state_dict(model.state_dict())
    before, images = copy.deepcopy(frozen.state_dict()), torch.randn(6, 1, 4, 4)
    with frozen_batch_statistics(averaging_layers(frozen)):
        outputs = frozen(images)
    assert torch.equal(outputs, model(images))
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert not torch.equal(model.state_dict()["1.running_mean"], before["1.running_mean"])


class Frozen(nn.BatchNorm1d):
    """Stays in evaluation mode, as in fine-tuning."""

    def train(self, mode=True):
        return super().train(False)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 4),
        nn.LayerNorm(4),
        Frozen(4),
        nn.BatchNorm1d(4),
        nn.SyncBatchNorm(4),
        nn.BatchNorm1d(4, track_running_stats=False),
    ],
)
def test_least_batch_is_what_pytorch_accepts(layer):
    model = nn.Sequential(nn.Linear(4, 4), layer).train()
    before = modes(model)
    for training in (True, False):
        model.train(training)
        try:
            model(torch.zeros(1, 4))
            works = True
        except ValueError as error:
            works = "more than 1 value" not in str(error) and "GPU" not in str(error)
        assert least_batch(model, training=training) == (1 if works else 2)
    model.train()
    assert modes(model) == before


SQUARE = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))


class Unreached(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.other = copy.deepcopy(SQUARE), nn.BatchNorm1d(2)

    def forward(self, inputs):
        return self.body(inputs)


class Named(nn.Module):
    """Calls its normalization by keyword."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = SQUARE[0], copy.deepcopy(SQUARE[1])

    def forward(self, inputs):
        return self.norm(input=self.first(inputs))


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize(
    ("network", "shape", "least"),
    [
        (Named(), (1, 4, 4), 1),
        (Named(), (1, 3, 3), 2),
        (SQUARE, (1, 4, 4), 1),
        (SQUARE, (1, 3, 3), 2),
        (nn.Sequential(nn.Conv2d(1, 3, 3), nn.SyncBatchNorm(3)), (1, 4, 3), 1),
        (net(), (1, 4, 4), 2),
        (nn.BatchNorm1d(5), (5,), 2),
        (nn.BatchNorm1d(5), (5, 2), 1),
        (Unreached(), (1, 4, 4), 2),
        (nn.Linear(2, 2), (2,), 1),
    ],
)
def test_one_sample_is_enough_where_it_has_several_values_per_channel(network, shape, least, track):
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not track:
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
            module.eval()
    before, buffers, state = modes(network), copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert least_batch(network, training=track, size=1, shape=shape) == least
    assert modes(network) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, buffers[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())
    # Batches of more are merged as ever, so that a recording stays what it was.
    affected = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    assert least_batch(network, training=track) == (2 if affected else 1)
    if not isinstance(network, Unreached):
        # PyTorch's own opinion.
        network.train()
        if least == 2:
            with pytest.raises(ValueError, match="more than 1 value"):
                network(torch.zeros(1, *shape))
        else:
            network(torch.zeros(1, *shape))
