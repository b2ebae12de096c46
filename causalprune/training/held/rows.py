"""Rows of a recording whose steps are held: what such a recording says of itself, and what each row takes."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import nn

from causalprune.base.errors import UsageError
from causalprune.training.held.steps import HeldSteps
from causalprune.training.loop_watch import LoopWatch
from causalprune.training.ranks import Writer
from causalprune.training.row import row_memory
from causalprune.training.step_losses import Measure, StepLosses
from causalprune.training.weight_deltas import WeightDeltas
from causalprune.trajectory.schema import HOLD_SHARE
from causalprune.trajectory.steps import UpdateRule


def describe_held(described: dict[str, Any], share: float, stride: int, loss_change: str) -> dict[str, Any]:
    """What a recording of held steps says instead of its optimizer, which takes no step.

    Args:
        described: What it would say of the optimizer, by ``OptimizerGroups.described``.
        share: η‖g‖² as a share of the loss.
        stride: Steps per row.
        loss_change: Which losses ΔL is the difference of.

    Raises:
        UsageError: Another optimizer than plain SGD, a stride, ``next-batch`` losses, or a share out of range.
    """
    if not 0 < share < 1:
        raise UsageError("`hold_share`", expected="a number in (0, 1)", found=f"{share}")
    named = {name: described[name] for name in ("optimizer", "momentum")}
    rule = UpdateRule(**named, **described["extra"], stride=stride)
    found = rule.against_gradients() or ("" if loss_change == "same-batch" else f"{loss_change} losses")
    if found:
        raise UsageError(
            "`hold`",
            expected="plain SGD with `stride=1, loss_change=same-batch`, because every step is taken back",
            found=found,
            remedy="in a loop of your own pass torch.optim.SGD(model.parameters()), which takes no step",
        )
    # Which parameter group a weight is in makes no difference.
    return {**named, "lr": described["lr"], "extra": {HOLD_SHARE: float(share)}}


class HeldRows:
    """Appends a row for each step that is tried and taken back.

    Args:
        model: What the loop calls; it stays as it is from now on.
        weights: Its recorded weights.
        share: η‖g‖² as a share of the loss.
        watch: What the loop does.
        losses: Measures the loss before the first step and those of each step.
        writer: Gets the rows.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: WeightDeltas,
        share: float,
        watch: LoopWatch,
        losses: StepLosses,
        writer: Writer,
    ) -> None:
        self._steps = HeldSteps(model, weights.parameters, weights.mask, share, weights.own)
        self._device = weights.device
        self._watch, self._losses, self._writer = watch, losses, writer
        self._started = False
        weights.stay()

    def append(self, value: float | torch.Tensor | None, measure: Measure | None, epoch: int, batch: int) -> None:
        """Try a step along the gradient that the weights have, and append its row.

        Args:
            value: The loss of the minibatch; None to measure it.
            measure: Computes the loss.
            epoch: Only noted.
            batch: Only noted.

        Raises:
            UsageError: No ``measure``; a loss that can't be measured again; gradients of more minibatches than are
                measured; a gradient that isn't that of the loss.
        """
        if measure is None:
            raise UsageError("Recorder.step", expected="measure, for held steps", found="None")
        before = self._losses.before(value, measure)
        if not self._started:
            self._losses.require_repeatable(before, measure, self._steps.share * abs(float(before)))
        self._losses.require_all_minibatches(given=value is not None)
        self._started = True
        self._watch.begin_step()
        try:
            step = self._steps.take(
                measure,
                lambda tried: float(self._losses.measured(tried)),
                draws=self._losses.draws(),
                out=row_memory(self._writer, self._device),
            )
        finally:
            self._watch.end_step()
        if self._steps.precision != "float64":
            self._writer.noted = {**self._writer.noted, "precision": self._steps.precision}
        self._writer.append(**vars(step), epoch=epoch, batch=batch)

    def refuse_halves(self) -> NoReturn:
        """Refuse to begin a step that something else would take.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "Recorder.begin_step",
            expected="an optimizer that takes the steps",
            found="a recorder that holds the weights",
            remedy="call Recorder.step instead",
        )

    def close(self) -> None:
        """Put the network's buffers back."""
        self._steps.put_back()
