"""The optimizer that a recorder watches: what a recording says of its parameter groups, their rates and gradients."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from causalprune.base.errors import UsageError
from causalprune.trajectory import RecordingWriter
from causalprune.trajectory.row_block import on_device
from causalprune.trajectory.steps import STEP_EXTRAS
from causalprune.trajectory.steps.learning_rates import ParameterGroup, group_scalars


def inner_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer of PyTorch within what Lightning or Accelerate put around it."""
    within = getattr(optimizer, "optimizer", None)
    return inner_optimizer(within) if isinstance(within, Optimizer) else optimizer


class OptimizerGroups:
    """The parameter groups of an optimizer.

    Args:
        optimizer: The optimizer.
        parameters: The recorded parameters by name.

    Raises:
        UsageError: An optimizer that needs a closure, that has no learning rate, or that lacks all the parameters.
    """

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
        self._optimizer = optimizer
        self._type = type(inner_optimizer(optimizer))
        _require_no_closure(self._type)
        names = {id(parameter): name for name, parameter in parameters.items()}
        self._names = [
            tuple(names[id(p)] for p in group["params"] if id(p) in names) for group in optimizer.param_groups
        ]
        if not any(self._names):
            raise UsageError(
                "optimizer",
                expected="one that trains the model that is recorded",
                found=f"none of its {len(names)} recorded weights in the parameter groups",
                remedy="make it of the parameters of this model, and after the model was moved or replaced",
            )
        self._kinds = [_kind(group) for group in optimizer.param_groups]
        # The group whose rate stands for all where there is only room for one.
        self._first = next(number for number, group in enumerate(self._names) if group)

    @property
    def described(self) -> dict[str, Any]:
        """The fields of :class:`causalprune.trajectory.RecordingInfo` that an optimizer decides."""
        groups = self._optimizer.param_groups
        own = [group for group, names in zip(groups, self._names, strict=True) if names]
        found: dict[str, Any] = {
            "optimizer": self._type.__name__.lower(),
            "lr": _nominal(groups[self._first]),
            "momentum": max(_momentum(group) for group in own),
            "extra": {name: max(group.get(name, 0) for group in own) for name in STEP_EXTRAS if _any(own, name)},
        }
        if len(groups) > 1:
            found["groups"] = tuple(
                ParameterGroup(
                    names, _nominal(group), _momentum(group), {n: group[n] for n in STEP_EXTRAS if group.get(n)}
                )
                for group, names in zip(groups, self._names, strict=True)
            )
            found["step_scalars"] = tuple(name for number in range(len(groups)) for name in group_scalars(number))
        return found

    def require_described_by(self, writer: Any) -> None:
        """Check that a recording that was begun elsewhere knows the groups, where there are several.

        Args:
            writer: Its writer; one that stores nothing knows nothing.

        Raises:
            UsageError: It doesn't.
        """
        if not isinstance(writer, RecordingWriter):
            return
        own, theirs = self.described.get("groups", ()), writer.info.groups
        if [group.parameters for group in own] != [group.parameters for group in theirs]:
            raise UsageError(
                "optimizer",
                expected=f"the {max(1, len(theirs))} parameter groups of the recording that goes on",
                found=f"{max(1, len(own))} parameter groups, or others",
                remedy="give it the same groups, or record into a new store",
            )

    @property
    def lr(self) -> float:
        """Learning rate of the coming step; of the first group with recorded parameters, if there are several."""
        return _rate(self._optimizer.param_groups[self._first])

    def rates(self) -> dict[str, float]:
        """The learning rates that a recording of several groups declares; empty for one group."""
        groups = self._optimizer.param_groups
        rates = {group_scalars(number)[0]: _rate(group) for number, group in enumerate(groups)}
        return rates if len(groups) > 1 else {}

    def norms(self) -> dict[str, float | torch.Tensor]:
        """The norms of the gradients that a recording of several groups declares; empty for one group."""
        groups = self._optimizer.param_groups
        if len(groups) == 1:
            return {}
        return {group_scalars(number)[1]: gradient_norm(group["params"]) for number, group in enumerate(groups)}

    def require_same(self) -> None:
        """Check that groups and settings are those of the beginning; learning rates may differ.

        Raises:
            UsageError: They aren't.
        """
        kinds = [_kind(group) for group in self._optimizer.param_groups]
        if kinds != self._kinds:
            found = f"{len(kinds)} parameter groups" if len(kinds) != len(self._kinds) else "another setting"
            raise UsageError(
                "optimizer",
                expected=f"the {len(self._kinds)} parameter groups of the beginning, with momentum, weight decay and "
                "direction as they were",
                found=found,
                remedy="close the recorder, and go on in a new recording",
            )


def unscale(optimizer: Optimizer, scaler: GradScaler | None) -> None:
    """Let the gradients be what the optimizer will see, unless the loop has seen to that, in order to clip them."""
    if scaler is None:
        return
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in f"{error}":
            raise


def take_step(optimizer: Optimizer, scaler: GradScaler | None) -> None:
    """Let the optimizer take a step; a scaler may skip it."""
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float | torch.Tensor:
    """Euclidean norm of the gradients that there are; on a device a tensor, so that nobody waits for it."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm if on_device(norm) else norm.item()


def _rate(group: Mapping[str, Any]) -> float:
    if group.get("lr") is None:
        raise UsageError("optimizer", expected="a learning rate `lr` in each parameter group", found="none")
    return float(group["lr"])


def _nominal(group: Mapping[str, Any]) -> float:
    """The rate, or the one that a warm-up from 0 leads to."""
    return _rate(group) or float(group.get("initial_lr", 0.0))


def _momentum(group: Mapping[str, Any]) -> float:
    return float(group.get("momentum") or 0.0)


def _any(groups: list[dict[str, Any]], name: str) -> bool:
    return any(group.get(name) for group in groups)


def _kind(group: Mapping[str, Any]) -> tuple[bool, ...]:
    """What makes a step of SGD another kind of step; schedulers may change numbers, but not this."""
    return (_momentum(group) > 0, *(bool(group.get(name)) for name in STEP_EXTRAS))


def _require_no_closure(optimizer: type[Optimizer]) -> None:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UsageError(
            "optimizer",
            expected="one whose step() needs no closure",
            found=optimizer.__name__,
            remedy="record with SGD; a step that evaluates the loss several times has no single gradient",
        )
