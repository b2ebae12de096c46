"""Optimizers and learning-rate schedules by name: an unknown one is an error, a new one is a line in the registry."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from causalprune.base.errors import UsageError
from causalprune.base.registry import Registry
from causalprune.training import optimizers
from causalprune.training.optimizers import build_lr_schedule, build_optimizer, scaled_step, warmup_factor
from causalprune.training.options import TrainingOptions


def unchecked(**changes):
    """Options that nobody checked, as a library caller may hand over."""
    options = TrainingOptions()
    return SimpleNamespace(**{**vars(options), "decay_points": options.decay_points, **changes})


def test_an_unknown_name_is_an_error_with_a_hint_and_no_silent_default():
    with pytest.raises(UsageError, match=r"^optimizer: .*sgd, adam.*did you mean 'adam'.*found 'adamv'"):
        build_optimizer(nn.Linear(2, 2), unchecked(optimizer="adamv"))
    optimizer = build_optimizer(nn.Linear(2, 2), TrainingOptions())
    with pytest.raises(UsageError, match=r"^learning-rate schedule: .*did you mean 'cosine'.*found 'cosinus'"):
        build_lr_schedule(optimizer, unchecked(lr_schedule="cosinus"), 10)
    for wrong in ({"optimizer": "adamv"}, {"lr_schedule": "cosinus"}):
        with pytest.raises(UsageError, match="did you mean"):
            replace(TrainingOptions(), **wrong)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_each_name_is_the_optimizer_of_torch_with_the_options_that_it_takes(name, kind):
    options = TrainingOptions(optimizer=name, lr=0.25, weight_decay=0.125, momentum=0.5, nesterov=True)
    optimizer = build_optimizer(nn.Linear(2, 2), options)
    assert type(optimizer) is kind
    expected = {"lr": 0.25, "weight_decay": 0.125} | ({"momentum": 0.5, "nesterov": True} if name == "sgd" else {})
    assert {key: optimizer.param_groups[0][key] for key in expected} == expected


def test_a_new_one_is_one_line_and_takes_what_it_needs(monkeypatch):
    monkeypatch.setattr(optimizers, "OPTIMIZERS", Registry("optimizer", {"nadam": "torch.optim:NAdam"}))
    linear = {"linear": "torch.optim.lr_scheduler:PolynomialLR"}
    monkeypatch.setattr(optimizers, "LR_SCHEDULES", Registry("learning-rate schedule", linear))
    optimizer = build_optimizer(nn.Linear(2, 2), unchecked(optimizer="nadam", lr=0.5))
    schedule = build_lr_schedule(optimizer, unchecked(lr_schedule="linear"), 10)
    assert isinstance(optimizer, torch.optim.NAdam)
    assert schedule.get_last_lr() == [0.5]


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 0), (0.1, 10), (0.104, 10), (0.99, 99), (0.001, 0)])
def test_warmup_is_a_line_to_one(warmup, steps):
    expected = [min(1.0, (step + 1) / steps) if steps else 1.0 for step in range(100)]
    assert [warmup_factor(step, warmup, 100) for step in range(100)] == expected


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_scaled_step_is_one_at_a_smaller_rate_and_leaves_the_rate(name):
    layers = [nn.Linear(3, 2, bias=False) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer, lr, factor in zip(layers, (0.5, 0.125), (0.25, 1.0), strict=True):
        optimizer = build_optimizer(layer, TrainingOptions(optimizer=name, lr=lr))
        for _ in range(3):
            layer.weight.grad = torch.arange(6.0).reshape(2, 3)
            scaled_step(optimizer, factor)
        assert optimizer.param_groups[0]["lr"] == lr
    assert torch.equal(layers[0].weight, layers[1].weight)
