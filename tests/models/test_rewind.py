"""Rewinding: the whole earlier state, under the mask; or nothing at all."""

import copy

import pytest
import torch
from torch import nn

from causalprune.base.errors import MismatchError
from causalprune.models.mask import Mask, rewind
from causalprune.models.parameters import ParameterIndex


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2), nn.BatchNorm1d(2))


def train_a_little(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(6, 1, 4, 4)).square().mean().backward()
        optimizer.step()


def test_the_whole_state_comes_back_under_the_mask() -> None:
    model = net()
    train_a_little(model)
    earlier = copy.deepcopy(model.state_dict())
    train_a_little(model)
    index = ParameterIndex.from_model(model)
    mask = Mask(index, torch.arange(index.total) % 3 > 0)
    rewind(model, earlier, mask)
    kept = mask.tensors()
    for name, value in model.state_dict().items():
        expected = torch.where(kept[name], earlier[name], 0.0) if name in kept else earlier[name]
        assert torch.equal(value, expected), name
    assert "1.running_mean" in earlier


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("1.running_var"), "1.running_var missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra of no such model"),
        (lambda s: s.update({"3.bias": torch.zeros(3)}), r"3.bias to rewind to: expected shape \(2,\), found \(3,\)"),
    ],
)
def test_weights_of_another_model_change_nothing(change, message: str) -> None:
    model = net()
    mask = Mask.all(ParameterIndex.from_model(model))
    before = copy.deepcopy(model.state_dict())
    weights = {name: torch.zeros_like(value) for name, value in before.items()}
    change(weights)
    with pytest.raises(MismatchError, match=message):
        rewind(model, weights, mask)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_mask_of_another_model_changes_nothing() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    weights = {name: torch.zeros_like(value) for name, value in before.items()}
    with pytest.raises(MismatchError, match="a parameter weight"):
        rewind(model, weights, Mask.all(ParameterIndex.from_model(nn.Linear(2, 2))))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
