"""Steps of plain SGD that are tried, measured and taken back: gradients and ΔL of many minibatches at one point.

A step is Δθ = −η·g of the recorded weights alone. η is such that η‖g‖², what the loss falls by to first order, is a
given share of the loss, and the losses are computed in float64 from float64 copies of the weights. So no gradient
vanishes in the rounding of the weights, and ΔL is that of the very Δθ in the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from causalprune.base.errors import CausalpruneError, UsageError
from causalprune.base.progress import logger
from causalprune.models.mask import Mask
from causalprune.training.held.float64_twin import Float64Twin, Measure, Measured, computed_kept
from causalprune.training.pass_state import is_expanded
from causalprune.trajectory.steps.rounding import ROUNDINGS

LossAt = Callable[[dict[str, torch.Tensor], int], float]

TOLERANCE = 0.1
"""By how much of η‖g‖² the slope of the measured loss along Δθ may differ from −η‖g‖² in the first row."""

LONGEST = 0.1
"""Longest step, as a share of the norm of the weights: where a loss is large and flat, it would leave the network."""


@dataclass(frozen=True)
class HeldStep:
    """A row.

    Attributes:
        delta: (own columns,) Δθ, float32.
        loss_before: L(θ).
        loss_after: L(θ + Δθ).
        lr: η.
        grad_norm: ‖g‖ by the measured slope, √(−L′/η) with L′ = (L(θ + Δθ) − L(θ − Δθ))/2; it lacks the rounding of the
            computed gradient, which would otherwise decide about L(θ + Δθ) − L(θ) + η‖g‖². By the gradient itself
            where the two differ by more than :data:`TOLERANCE`.
    """

    delta: torch.Tensor
    loss_before: float
    loss_after: float
    lr: float
    grad_norm: float


class HeldSteps:
    """Tries steps on a network that stays as it is from now on, bit for bit.

    Args:
        model: What is called. Its buffers are put back after each step to what they are now.
        parameters: The recorded weights by name.
        mask: Those without a column, pruned or not drawn, don't move.
        share: η‖g‖² as a share of the loss.
        own: The columns whose Δθ is wanted; None for all.

    Attributes:
        share: The same.
        precision: ``float64``, or ``float32`` where that is all that losses have: on devices without float64, and for
            networks that don't compute in it or draw random numbers, which differ between the two.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        mask: Mask,
        share: float,
        own: slice | None = None,
    ) -> None:
        self.share = share
        self._own = own or slice(None)
        self.precision = "float64"
        self._model, self._parameters, self._mask = model, parameters, mask
        self._buffers = [
            (module._buffers, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and not is_expanded(buffer)
        ]
        device = next(iter(parameters.values())).device
        self._keep = mask.keep.to(device) if mask.num_kept < mask.index.total else None
        self._steps = 0
        self._wide = torch.float64
        if device.type == "mps":
            self._wide = torch.float32
            self._use_float32("the device has no float64")

    def put_back(self) -> None:
        """Put the buffers back."""
        with torch.no_grad():
            for owner, name, buffer, value in self._buffers:
                owner[name] = buffer
                buffer.copy_(value)

    def take(self, measure: Measure, measured: Measured, *, draws: bool, out: torch.Tensor | None) -> HeldStep:
        """Try one step along the gradient that the weights have.

        Args:
            measure: Computes the loss.
            measured: Calls what it gets, in the state of the step's forward pass, and returns the value.
            draws: Whether the network draws random numbers.
            out: Where to put Δθ, (own columns,) float32; None for a new tensor.

        Raises:
            UsageError: The gradient isn't that of the loss.
            CausalpruneError: Whatever ``measured`` raises.
        """
        if self.precision == "float64" and draws:
            self._use_float32("it draws random numbers, which are others in float64")
        try:
            with computed_kept(self._model):
                step = self._in_float64(measure, measured, out) if self.precision == "float64" else None
                if step is None:
                    step = self._step(partial(self._loss_in_place, measure, measured), out)
        finally:
            self.put_back()
        self._steps += 1
        return step

    def _in_float64(self, measure: Measure, measured: Measured, out: torch.Tensor | None) -> HeldStep | None:
        """A step whose losses are computed in float64; None if the network can't."""
        try:
            return self._step(Float64Twin(self._model, self._parameters, measure, measured).loss, out)
        except CausalpruneError:
            raise
        except Exception as error:  # a network may fail in any way
            if self._steps:
                raise
            self._use_float32(f"{type(error).__name__}: {f'{error}'.partition(chr(10))[0]}"[:200])
            return None

    def _use_float32(self, reason: str) -> None:
        self.precision = "float32"
        logger.warning(
            "the losses of held steps are computed in float32, not float64 (%s): where rounding decides about a "
            "curvature, it is flagged; a larger `hold_share`, up to 0.1, leaves fewer of these",
            reason,
        )

    def _step(self, loss: LossAt, out: torch.Tensor | None) -> HeldStep:
        """Take a step.

        Args:
            loss: Takes Δθ by name and a factor of it, and measures the loss there.
            out: See :meth:`take`.
        """
        gradient = self._gradient()
        norm = float(torch.linalg.vector_norm(gradient))
        delta = torch.zeros_like(gradient, dtype=torch.float32)
        by_name = self._mask.index.split(delta)
        before = loss(by_name, 0)
        lr = self._rate(before, norm)
        torch.mul(gradient, -lr, out=gradient)
        delta.copy_(gradient)
        after, opposite = loss(by_name, 1), loss(by_name, -1)
        row = (delta if self._keep is None else delta[self._keep])[self._own]
        row = row if out is None else out.copy_(row)
        slope, expected = (after - opposite) / 2, -lr * norm**2
        if abs(slope - expected) <= TOLERANCE * abs(expected):
            return HeldStep(row, before, after, lr, math.sqrt(abs(slope) / lr))
        if not self._steps and self._is_known(before, expected):
            if before == after == opposite and self.precision == "float64":
                raise _UnseenError("`measure` computes with weights of its own")
            raise UsageError(
                "gradient while recording",
                expected=f"that of the loss that `measure` computes, along which it changes by {expected:.3g}",
                found=f"a change by {slope:.3g}",
                remedy="neither clip nor scale the gradient, and let `measure` compute every term of the loss",
            )
        return HeldStep(row, before, after, lr, norm)

    def _is_known(self, loss: float, change: float) -> bool:
        """Whether neither a loss nor the gradient, which may be that of a loss in float32, is mostly rounding."""
        eps = torch.finfo(getattr(torch, self.precision)).eps
        in_float32 = ROUNDINGS * torch.finfo(torch.float32).eps
        return abs(loss) * TOLERANCE > in_float32 and abs(change) * TOLERANCE > ROUNDINGS * eps * max(1.0, abs(loss))

    def _gradient(self) -> torch.Tensor:
        """(P,) float64, 0 where nothing moves."""
        first = next(iter(self._parameters.values()))
        flat = torch.empty(self._mask.index.total, dtype=self._wide, device=first.device)
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self._parameters.items()}
        self._mask.index.flatten(gradients, out=flat)
        return flat if self._keep is None else flat.mul_(self._keep)

    def _rate(self, loss: float, norm: float) -> float:
        """η, so that η‖g‖² is the share of the loss, but ‖Δθ‖ at most :data:`LONGEST` of ‖θ‖."""
        if norm == 0:
            return 1.0
        size = float(sum(p.detach().to(self._wide).square().sum() for p in self._parameters.values())) ** 0.5
        length = self.share * max(abs(loss), torch.finfo(torch.float64).eps) / norm
        return min(length, LONGEST * size or length) / norm

    def _loss_in_place(
        self,
        measure: Measure,
        measured: Measured,
        delta: dict[str, torch.Tensor],
        factor: int,
    ) -> float:
        """The loss at θ + factor·Δθ, with the network's own weights moved and put back."""
        if not factor:
            return measured(measure)
        kept = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        try:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.add_(delta[name].to(parameter.dtype), alpha=factor)
            return measured(measure)
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(kept[name])


class _UnseenError(Exception):
    """The loss doesn't depend on the weights that the network has for the moment."""
