"""Optimizers and learning-rate schedules by name, and their state as named tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from causalprune.base.errors import CorruptError
from causalprune.base.registry import call_with
from causalprune.training.names import LR_SCHEDULES, OPTIMIZERS
from causalprune.training.options import TrainingOptions


def build_optimizer(model: nn.Module, options: TrainingOptions) -> Optimizer:
    """The optimizer that ``options`` names, over all parameters of the model.

    Raises:
        UsageError: There is no such optimizer.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer: Optimizer = call_with(OPTIMIZERS.load(options.optimizer), parameters, **_values(options))
    return optimizer


def build_lr_schedule(optimizer: Optimizer, options: TrainingOptions, total_steps: int) -> LRScheduler:
    """The learning-rate schedule that ``options`` names, advanced once per optimizer step, over ``total_steps``.

    Raises:
        UsageError: There is no such schedule.
    """
    schedule: LRScheduler = call_with(
        LR_SCHEDULES.load(options.lr_schedule),
        optimizer,
        total_steps=max(1, total_steps),
        decay_points=options.decay_points(),
        **_values(options),
    )
    return schedule


def _values(options: TrainingOptions) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in fields(TrainingOptions)}


def sgd(
    parameters: list[nn.Parameter], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> Optimizer:
    """Stochastic gradient descent; without momentum there is none of Nesterov's either."""
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay)


def cosine(optimizer: Optimizer, *, total_steps: int) -> LRScheduler:
    """From the peak to 0 along half a cosine."""
    return CosineAnnealingLR(optimizer, T_max=total_steps)


def one_cycle(optimizer: Optimizer, *, lr: float, total_steps: int) -> LRScheduler:
    """Up to the peak and down to almost 0."""
    # One more step than there are: the schedule is also advanced after the last one.
    return OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps + 1, cycle_momentum=False)


def step(optimizer: Optimizer, *, decay_points: tuple[float, ...], lr_decay: float, total_steps: int) -> LRScheduler:
    """The peak, times ``lr_decay`` from each share ``decay_points`` of the training on."""
    return MultiStepLR(optimizer, [round(share * total_steps) for share in decay_points], gamma=lr_decay)


def constant(optimizer: Optimizer) -> LRScheduler:
    """The peak throughout."""
    return ConstantLR(optimizer, factor=1.0)


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state, keyed ``optimizer/<parameter name>/<state name>``."""
    names: dict[torch.Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"optimizer/{names[parameter]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimizer(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` returned.

    Raises:
        CorruptError: A tensor belongs to no parameter of the model.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if not name.startswith("optimizer/"):
            continue
        parameter_name, _, key = name.removeprefix("optimizer/").rpartition("/")
        if parameter_name not in parameters:
            raise CorruptError(name, expected="optimizer state of a parameter of the model", found="no such parameter")
        parameter = parameters[parameter_name]
        # Adam keeps its step count on the CPU.
        device = parameter.device if tensor.shape == parameter.shape else tensor.device
        optimizer.state[parameter][key] = tensor.to(device, copy=True)


def schedule_state(optimizer: Optimizer, schedule: LRScheduler) -> dict[str, Any]:
    """The schedule's position, JSON-ready; floats survive JSON exactly."""
    state = {k: v for k, v in schedule.state_dict().items() if _is_json(v)}
    return {"schedule": state, "lr": [group["lr"] for group in optimizer.param_groups]}


def restore_schedule(optimizer: Optimizer, schedule: LRScheduler, state: Mapping[str, Any]) -> None:
    """Put back what :func:`schedule_state` returned.

    Raises:
        ValueError: It is the state of another schedule.
    """
    own = schedule_state(optimizer, schedule)
    kinds = [{key: _kind(value) for key, value in s["schedule"].items()} for s in (own, state)]
    if kinds[0] != kinds[1] or _kind(own["lr"]) != _kind(state["lr"]):
        raise ValueError("a state of another learning-rate schedule")
    schedule.load_state_dict({**schedule.state_dict(), **state["schedule"]})
    for group, lr in zip(optimizer.param_groups, state["lr"], strict=True):
        group["lr"] = lr


def _kind(value: Any) -> Any:
    """What a saved value has to have in common with the one it replaces: numbers are alike, finite, and in place."""
    if isinstance(value, list):
        return [_kind(item) for item in value]
    number = type(value) in (int, float) and math.isfinite(value) and abs(value) < 2**53
    return "number" if number else type(value)


def _is_json(value: Any) -> bool:
    try:
        # MultiStepLR's counter of milestones has integer keys, which JSON would turn into text.
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False
