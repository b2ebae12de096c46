"""Optimizers and learning-rate schedules by name; their state for a resume."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from causalprune.base.errors import CorruptError, UsageError
from causalprune.base.registry import call_with
from causalprune.training.names import LR_SCHEDULES, OPTIMIZERS
from causalprune.training.options import TrainingOptions


def build_optimizer(model: nn.Module, options: TrainingOptions) -> Optimizer:
    """Build the optimizer that ``options`` names, for all trainable parameters of the model.

    Raises:
        UsageError: No optimizer has this name; or there are epochs to train, but all parameters are frozen.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters and options.epochs:
        raise UsageError(
            f"model {type(model).__name__}",
            expected="a parameter to train",
            found="all of them frozen (requires_grad=False)",
            remedy="use `epochs=0` to leave it as it is",
        )
    parameters = parameters or list(model.parameters())
    optimizer: Optimizer = call_with(OPTIMIZERS.load(options.optimizer), parameters, **vars(options))
    return optimizer


def build_lr_schedule(optimizer: Optimizer, options: TrainingOptions, total_steps: int) -> LRScheduler:
    """Build the learning-rate schedule that ``options`` names, to be advanced after each of ``total_steps`` steps.

    Raises:
        UsageError: No schedule has this name.
    """
    schedule: LRScheduler = call_with(
        LR_SCHEDULES.load(options.lr_schedule),
        optimizer,
        **{**vars(options), "total_steps": max(1, total_steps), "decay_points": options.decay_points()},
    )
    return schedule


def warmup_factor(step: int, warmup: float, total_steps: int) -> float:
    """What the learning rate of the schedule is multiplied by in a step.

    min(1, (t + 1)/W) with W = round(``warmup``·``total_steps``): a line that reaches 1 in step W − 1, the W-th one.

    Args:
        step: t, from 0.
        warmup: Share of the training in [0, 1).
        total_steps: Steps of the whole training.
    """
    steps = round(warmup * total_steps)
    return (step + 1) / steps if step + 1 < steps else 1.0


def scaled_step(optimizer: Optimizer, factor: float) -> None:
    """Take an optimizer step at ``factor`` times the learning rate, which is the schedule's again afterwards.

    No schedule sees the factor, so that those which compute a rate from the last one stay right.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = factor * rate
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def sgd(
    parameters: list[nn.Parameter], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> Optimizer:
    """Stochastic gradient descent; ``nesterov`` has no effect without momentum."""
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay)


def cosine(optimizer: Optimizer, *, total_steps: int) -> LRScheduler:
    """Fall from the peak rate to 0 along half a cosine."""
    return CosineAnnealingLR(optimizer, T_max=total_steps)


def one_cycle(optimizer: Optimizer, *, lr: float, total_steps: int) -> LRScheduler:
    """Rise to the peak rate, then fall to almost 0."""
    # One step more than the training has, because the schedule is also advanced after the last one.
    return OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps + 1, cycle_momentum=False)


def step(optimizer: Optimizer, *, decay_points: tuple[float, ...], lr_decay: float, total_steps: int) -> LRScheduler:
    """Start at the peak rate and multiply it by ``lr_decay`` at each of ``decay_points``, fractions of the training."""
    return MultiStepLR(optimizer, [round(share * total_steps) for share in decay_points], gamma=lr_decay)


def constant(optimizer: Optimizer) -> LRScheduler:
    """Stay at the peak rate."""
    return ConstantLR(optimizer, factor=1.0)


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state tensors, keyed ``optimizer/<parameter name>/<state name>``."""
    names: dict[torch.Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"optimizer/{names[parameter]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimizer(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore what :func:`optimizer_tensors` returned.

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
    """The schedule's position, ready for JSON, which keeps floats exactly."""
    state = {k: v for k, v in schedule.state_dict().items() if _is_json(v)}
    return {"schedule": state, "lr": [group["lr"] for group in optimizer.param_groups]}


def restore_schedule(optimizer: Optimizer, schedule: LRScheduler, state: Mapping[str, Any]) -> None:
    """Restore what :func:`schedule_state` returned.

    Raises:
        ValueError: ``state`` belongs to another kind of schedule.
    """
    own = schedule_state(optimizer, schedule)
    if _kind(own) != _kind(state):
        raise ValueError("a state of another learning-rate schedule")
    schedule.load_state_dict({**schedule.state_dict(), **state["schedule"]})
    for group, lr in zip(optimizer.param_groups, state["lr"], strict=True):
        group["lr"] = lr


def _kind(value: Any) -> Any:
    """What a saved value must have in common with the one it replaces: structure, types, finite numbers."""
    if isinstance(value, list):
        return [_kind(item) for item in value]
    if isinstance(value, dict):
        return {key: _kind(item) for key, item in value.items()}
    number = type(value) in (int, float) and math.isfinite(value) and abs(value) < 2**53
    return "number" if number else type(value)


def _is_json(value: Any) -> bool:
    try:
        # False for MultiStepLR's counter of milestones, whose integer keys JSON would turn into text.
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
