"""The losses of a step, both measured in the state in which its forward pass began."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from causalprune.base.compute.precision import rounds_factors
from causalprune.base.errors import UsageError
from causalprune.training.loop_watch import LoopWatch
from causalprune.training.metrics import loss_value
from causalprune.training.pass_state import PassState
from causalprune.training.ranks import Ranks
from causalprune.trajectory.row_block import on_device
from causalprune.trajectory.schema import LossChange
from causalprune.trajectory.steps.rounding import ROUNDINGS

Measure = Callable[[], torch.Tensor]

_MEASURE = "`measure`, a function such as lambda: criterion(model(inputs), targets)"

REPEATABLE_SHARE = 0.01
"""By how much of η‖g‖², the change that a step of SGD brings about, the same loss may differ when it is measured
twice."""

ROUNDING = ROUNDINGS * torch.finfo(torch.float32).eps
"""By how much it may differ in any case, relative to a loss above 1."""


def warn_of_rounded_products(device: torch.device) -> None:
    """Warn the caller's caller if products on a device are so rounded that it shows in differences of losses."""
    if rounds_factors(device.type):
        warnings.warn(
            "float32 products are rounded to TensorFloat-32 or bfloat16, which shows in ΔL: run the loop within "
            "causalprune.base.compute.precision.full_precision()",
            stacklevel=3,
        )


class StepLosses:
    """Measures losses, and refuses those that can't be what a step changes.

    Args:
        watch: What the loop does.
        state: The state of the step's first forward pass.
        ranks: The processes over which a loss is averaged.
        loss_change: Whether the loss after a step is that of the same minibatch, or of the next one.
    """

    def __init__(self, watch: LoopWatch, state: PassState, ranks: Ranks, loss_change: LossChange) -> None:
        self._watch, self._state, self._ranks = watch, state, ranks
        self._same_batch = loss_change == "same-batch"

    def value(self, loss: Any) -> float | torch.Tensor:
        """The value of a loss, averaged over the processes; on a device a copy that stays there.

        The writer checks that one.

        Raises:
            UsageError: Not a scalar.
            DataError: It isn't finite.
        """
        if not isinstance(loss, torch.Tensor):
            loss = torch.tensor(loss, dtype=torch.float64) if isinstance(loss, (int, float)) else loss
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or loss.is_complex():
            is_tensor = isinstance(loss, torch.Tensor)
            raise UsageError(
                "loss while recording",
                expected="a real scalar, the loss of the whole step",
                found=f"{loss.dtype} of shape {tuple(loss.shape)}" if is_tensor else type(loss).__name__,
                remedy="pass loss.mean() or the like, and return the same from `measure`",
            )
        if on_device(loss):
            return self._ranks.mean_on_device(loss)
        mean = torch.tensor(self._ranks.mean(loss.item()), dtype=torch.float64)
        return loss_value(mean, "loss while recording", remedy="lower `lr` of the recording")

    def measured(self, measure: Measure) -> float | torch.Tensor:
        """A loss in the saved state; nothing but the value remains of the pass."""
        with torch.no_grad(), self._watch.measuring(), self._state.repeated():
            # Autocast remembers the weights that it has rounded, as they were before the step, and in some versions
            # those that it rounds here would have no gradient in the loop.
            torch.clear_autocast_cache()
            value = self.value(measure())
            torch.clear_autocast_cache()
        if self._watch.other_mode:
            raise UsageError(
                "measure",
                expected="the same loss as before the step",
                found="modules in another mode",
                remedy="call neither train() nor eval() in it",
            )
        return value

    def before(
        self,
        value: float | torch.Tensor | None,
        measure: Measure | None,
        change: Callable[[], float] | None = None,
    ) -> float | torch.Tensor:
        """The loss before a step: the given value, or measured, where it isn't given or its state isn't known.

        Args:
            value: The given one.
            measure: Computes it.
            change: Returns that of :meth:`require_repeatable`, which is then asked; None to ask nothing.

        Raises:
            UsageError: There is no way to know it, or the loss after the step; or it can't be measured again.
        """
        if not self._same_batch:
            value = self.given(value)
            self._require_no_draws()
            return value
        if measure is None:
            raise UsageError("Recorder.step", expected=f"{_MEASURE}, for same-batch", found="None")
        if not callable(measure):
            raise UsageError("Recorder.step", expected=_MEASURE, found=f"a {type(measure).__name__}")
        if not self._watch.knows_state:
            self._state.save()
            if change is not None:
                self._require_same_draws(measure)
            value = None
        if value is None:
            value = self.measured(measure)
        if change is not None:
            self.require_repeatable(value, measure, change())
        return value

    @staticmethod
    def given(value: float | torch.Tensor | None) -> float | torch.Tensor:
        """A loss that nothing else can tell.

        Raises:
            UsageError: None.
        """
        if value is None:
            raise UsageError("Recorder.step", expected="the loss, for next-batch", found="None")
        return value

    def afterwards(self, measure: Measure) -> float | torch.Tensor:
        """A loss that doesn't begin in the state of an earlier one."""
        self._state.save()
        return self.measured(measure)

    def require_repeatable(self, value: float | torch.Tensor, measure: Measure, change: float) -> None:
        """Refuse a loss that differs when it is measured again without a step.

        Args:
            value: The loss.
            measure: Computes it.
            change: By how much the coming step will change it, to first order.
        """
        again, value = float(self.measured(measure)), float(value)
        if abs(again - value) > max(REPEATABLE_SHARE * change, ROUNDING * max(1.0, abs(value))):
            raise UsageError(
                "loss while recording",
                expected=f"{value:.9g} again when it is measured a second time without a step",
                found=f"{again:.9g}",
                remedy="let `measure` compute the same loss of the same minibatch, with the same autocast and scale, "
                "and the network draw from generators of PyTorch, Python or NumPy",
            )

    def draws(self) -> bool:
        """Whether the network has drawn random numbers since the step's first forward pass began."""
        return self._state.drew()

    def _require_same_draws(self, measure: Measure) -> None:
        """Refuse a network that draws random numbers, where nobody knows which it has drawn for the gradient."""
        with torch.no_grad(), self._watch.measuring(), self._state.repeated():
            measure()
            draws = self.draws()
        if draws:
            raise UsageError(
                "network",
                expected="one that draws no random numbers, because the loop doesn't call the model that Recorder was "
                "made with, so that the losses of a step would be of other draws than its gradient",
                found="one that does",
                remedy="call that model, or Recorder.begin_pass() before whatever is called, or use "
                "causalprune.models.modes.disable_dropout(model)",
            )

    def _require_no_draws(self) -> None:
        """Refuse a network that draws random numbers, where the two losses are of different forward passes."""
        if self._watch.forwards and self.draws():
            raise UsageError(
                "network",
                expected="one that draws no random numbers, which the two losses of a next-batch row can't share",
                found="one that does",
                remedy="use `loss_change=same-batch`, or in a loop of your own, "
                "causalprune.models.modes.disable_dropout(model)",
            )

    def require_all_minibatches(self, *, given: bool) -> None:
        """Refuse gradients of more passes than the loss is measured by.

        Args:
            given: Whether the loop gave the loss before the step. If it didn't, what measures both is for the whole
                step by definition, and passes are counted only where the loop calls the model.
        """
        watch = self._watch
        if not given and not watch.forwards:
            return
        measured = watch.measured if self._same_batch else 1
        if watch.backwards > 1 and measured < min(watch.backwards, watch.forwards or watch.backwards):
            remedy = "pass the sum of their losses, and a `measure` that computes it from all of them"
            raise UsageError(
                "Recorder.step",
                expected="the loss of all minibatches whose gradients were added up",
                found=f"{watch.backwards} backward passes and a loss of {measured} forward passes",
                remedy=remedy if watch.forwards else "let the loop call the model that Recorder was made with",
            )
