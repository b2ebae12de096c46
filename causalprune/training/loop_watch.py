"""What a training loop does between two recorded steps: forward and backward passes, and steps that nobody records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from causalprune.base.errors import UsageError
from causalprune.base.progress import logger
from causalprune.training.pass_state import PassState


class Hook:
    """Calls what it was made with; a copy of it, as in a copy of the model, does nothing."""

    def __init__(self, action: Callable[[], None] | None = None) -> None:
        self._action = action

    def __call__(self, *_: Any) -> None:
        """Call it, unless PyTorch is compiling the network that it hangs on."""
        if self._action is not None and not torch.compiler.is_compiling():
            self._action()

    def __reduce__(self) -> tuple[type[Hook], tuple[()]]:
        return Hook, ()


class LoopWatch:
    """Counts the passes of each step, and saves the state in which the first forward pass began.

    Forward passes without gradients, as those of an evaluation, don't count. After a change of mode counting starts
    anew, unless there was a backward pass.

    Args:
        model: What the loop calls.
        optimizer: What takes the steps.
        parameters: A backward pass is counted when one of them gets a gradient.
        state: Where the state is saved.

    Attributes:
        forwards: Forward passes since the last step.
        noted: Whether the loop has said where the step's first forward pass begins.
        measured: Forward passes of the last measurement, and whether one of them was in another mode.
        stepping: Whether a step that is recorded has begun.
        keep_state: Whether the saved state is still needed.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, parameters: Iterable[nn.Parameter], state: PassState
    ) -> None:
        self._state = state
        self.stepping = self._taken = self._measures = self._started = False
        self.forwards = self.measured = 0
        self.noted = False
        self.other_mode = self.keep_state = self._warned = False
        # Whether the optimizer took a step that isn't recorded.
        self._unrecorded = False
        self._handles: list[Any] = [model.register_forward_pre_hook(Hook(self._forward))]
        # Not so with a wrapper that only looks like an optimizer.
        self._notices_steps = hasattr(optimizer, "_optimizer_step_post_hooks")
        if self._notices_steps:
            self._handles.append(optimizer.register_step_post_hook(Hook(self._step)))
        watched = [parameter for parameter in parameters if parameter.requires_grad]
        self._gradients = [0] * len(watched)
        self._gradient_handles = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                Hook(partial(self._gradient, number))
            )
            for number, parameter in enumerate(watched)
        ]

    def close(self) -> None:
        """Watch no longer."""
        for handle in (*self._handles, *self._gradient_handles):
            handle.remove()

    @property
    def backwards(self) -> int:
        """Backward passes since the last step."""
        return max(self._gradients, default=0)

    def require_all_recorded(self) -> None:
        """Refuse a loop in which the optimizer took a step that isn't recorded.

        Raises:
            UsageError: It did.
        """
        if self._unrecorded:
            raise UsageError(
                "Recorder.step",
                expected="to take every step of the optimizer",
                found="a call of optimizer.step()",
                remedy="leave it out, because Recorder.step calls it",
            )

    def begin_pass(self) -> None:
        """The step's first forward pass begins here, whatever the loop calls."""
        if not (self.noted or self.keep_state or self.backwards):
            self._state.save()
            self.forwards, self.noted = 0, True

    @property
    def knows_state(self) -> bool:
        """Whether the state in which the step's first forward pass began is known."""
        return self.noted or self.forwards > 0

    def begin_step(self) -> None:
        """The optimizer's next step is recorded."""
        self.stepping, self._taken = True, not self._notices_steps

    def end_step(self) -> bool:
        """What follows belongs to the next step; returns whether the optimizer has taken one."""
        self.stepping = False
        if self._taken and not self._started:
            self._started = True
            self._watch_one_gradient()
        self._begin()
        return self._taken

    def warn_of_skipped(self) -> None:
        """Say, once, what becomes of a step that the optimizer hasn't taken."""
        if not self._warned:
            self._warned = True
            logger.warning("a step that the optimizer skipped makes no row; this is said once")

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """The body measures a loss."""
        self._measures, self.measured, self.other_mode = True, 0, False
        try:
            yield
        finally:
            self._measures = False

    def _begin(self) -> None:
        self.forwards, self.noted = 0, False
        self._gradients = [0] * len(self._gradients)

    def _watch_one_gradient(self) -> None:
        """Watch a single parameter that gets gradients from now on; all would cost a call each."""
        if not self.backwards:
            return
        chosen = self._gradients.index(self.backwards)
        for number, handle in enumerate(self._gradient_handles):
            if number != chosen:
                handle.remove()

    def _forward(self) -> None:
        if self._measures:
            self.measured += 1
            self.other_mode |= not self._state.same_modes
        elif torch.is_grad_enabled():
            if not self._started:
                # Training before the first row is nobody's business.
                self._unrecorded = False
            again = self.forwards and self._state.same_modes
            if not (self.backwards or self.keep_state or self.noted or again):
                self._state.save()
                self.forwards = 0
            self.forwards += 1

    def _gradient(self, number: int) -> None:
        self._gradients[number] += 1

    def _step(self) -> None:
        if self.stepping:
            self._taken = True
            return
        self._unrecorded = True
        if not self._started:
            self._begin()
