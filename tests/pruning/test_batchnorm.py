"""Resetting batch normalisation: like new, and nothing else."""

import copy

import torch
from torch import nn

from causalprune.models.modes import reset_batchnorm


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
    assert reset_batchnorm(model) == 2
    new = net().state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, (new if name.startswith(("1.", "4.")) else before)[name]), name
    assert reset_batchnorm(nn.Linear(2, 2)) == 0
