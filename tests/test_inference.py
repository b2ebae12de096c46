"""What measures a network leaves every module in the mode that it was in."""

import pytest
import torch
from torch import nn

from causalprune.evaluation.cost import flops
from causalprune.evaluation.latency import latency
from causalprune.evaluation.peak_memory import peak_memory
from causalprune.export.networks import trace
from causalprune.models.modes import evaluation_mode


@pytest.fixture
def model():
    """In training but for a frozen normalisation."""
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
