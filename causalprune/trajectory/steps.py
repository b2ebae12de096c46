"""The recorded steps: the scalars of each row, and the update rule that made the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

STEP_FIELDS = ("loss_before", "loss_after", "lr", "epoch", "batch", "grad_norm")
"""The rows of a recording's ``steps`` array, in order."""

_DTYPES = {name: np.int64 if name in ("epoch", "batch") else np.float64 for name in STEP_FIELDS}


@dataclass(frozen=True, eq=False)
class Steps:
    """The scalars of T rows; ``steps["lr"]`` is ``steps.lr``.

    Attributes:
        loss_before: (T,) float64, the loss before the step.
        loss_after: (T,) float64, the loss after it.
        lr: (T,) float64, the learning rate η_t.
        epoch: (T,) int64.
        batch: (T,) int64, number of the batch in its epoch.
        grad_norm: (T,) float64, Euclidean norm of the gradient. In a held recording that of the recorded weights, from
            the losses on both sides: √(−L′/η) with the derivative L′ of the loss along Δθ.
    """

    loss_before: np.ndarray
    loss_after: np.ndarray
    lr: np.ndarray
    epoch: np.ndarray
    batch: np.ndarray
    grad_norm: np.ndarray

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> Self:
        """Copy the columns of a (T, 6) float64 matrix in the order of :data:`STEP_FIELDS`."""
        return cls(**{name: column.astype(_DTYPES[name]) for name, column in zip(STEP_FIELDS, matrix.T, strict=True)})

    @classmethod
    def from_json(cls, value: Any, rows: int) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: Not ``rows`` finite numbers per field.
        """
        if not isinstance(value, dict) or set(value) != set(STEP_FIELDS):
            raise ValueError("steps without their fields")
        columns = {}
        for name, dtype in _DTYPES.items():
            types = {int} if dtype is np.int64 else {int, float}
            items = value[name]
            if not isinstance(items, list) or len(items) != rows or not set(map(type, items)) <= types:
                raise ValueError(f"{name} without {rows} numbers")
            try:
                columns[name] = np.array(items, dtype)
            except OverflowError as error:
                raise ValueError(f"{name} out of range") from error
            if not np.isfinite(columns[name]).all():
                raise ValueError(f"{name} not finite")
        return cls(**columns)

    @classmethod
    def concatenate(cls, parts: list[Steps]) -> Self:
        """Join the steps of consecutive rows; without parts, there are no rows."""
        parts = parts or [Steps.from_matrix(np.empty((0, len(STEP_FIELDS))))]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in STEP_FIELDS})

    @property
    def loss_change(self) -> np.ndarray:
        """ΔL_t = loss after − loss before, (T,) float64."""
        change: np.ndarray = self.loss_after - self.loss_before
        return change

    @property
    def second_order_change(self) -> np.ndarray:
        """ΔL_t + η_t·‖g_t‖², (T,) float64: what a step Δθ = −η·g of plain SGD does beyond the first order."""
        change: np.ndarray = self.loss_change + self.lr * self.grad_norm**2
        return change

    def __len__(self) -> int:
        return len(self.loss_before)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in STEP_FIELDS:
            raise KeyError(name)
        column: np.ndarray = getattr(self, name)
        return column

    def head(self, rows: int) -> Steps:
        """The first ``rows`` rows."""
        return Steps(**{f.name: getattr(self, f.name)[:rows] for f in fields(self)})

    def to_json(self) -> dict[str, list[float]]:
        """A JSON-ready dictionary, exact because a float's shortest decimal form reads back as the same float."""
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}

    def to_matrix(self) -> np.ndarray:
        """(6, T) float64 in the order of :data:`STEP_FIELDS`."""
        return np.stack([getattr(self, name).astype(np.float64) for name in STEP_FIELDS])


HOLD_SHARE = "hold_share"
"""Where a recording's ``extra`` has :attr:`UpdateRule.hold_share`."""

ROUNDINGS = 16
"""By how many units in the last place a loss may be off, relative to a loss above 1."""

TOLERABLE_VANISHED = 0.1
"""A larger share of vanished changes is worth a warning."""


def vanished_share(noted: Mapping[str, Any]) -> float | None:
    """Share of the changes that vanished in the rounding of the weights; None if none were counted.

    Args:
        noted: What a recording has noted: ``vanished``, with the columns that lost their change and all columns with a
            gradient, for each counted row.
    """
    counts = list(noted.get("vanished", {}).values())
    pushed = sum(count for _, count in counts)
    return sum(lost for lost, _ in counts) / pushed if pushed else None


def vanished_finding(share: float | None) -> str:
    """Say that many changes of a recording were lost in rounding; empty if it were few.

    Args:
        share: Of the changes; None if they weren't counted.
    """
    if share is None or share <= TOLERABLE_VANISHED:
        return ""
    return (
        f"{share:.0%} of the recorded changes vanished in the rounding of the weights, and with them their gradients: "
        "record with a larger `lr`, or with `hold`"
    )


STEP_EXTRAS = ("weight_decay", "nesterov", "maximize")
"""Optimizer settings with which Δθ isn't −η·g; those that are on are in a recording's ``extra``."""


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """How an optimizer made a row's Δθ, and which loss change the row has.

    Plain SGD steps by Δθ_t = −η_t·g_t, the gradient of minibatch t. To second order such a step changes the loss of its
    own minibatch by ΔL_t = Σ_k (−1/η + h_k/2)·Δθ_tk², so that γ_k = −1/η + h_k/2 with the curvature h_k.

    Held steps have an η each, with which no single γ agrees. There the first-order part is known, and taken out of what
    a fit explains: ΔL_t + η_t·‖g_t‖² = Σ_k h_k/2·Δθ_tk², so that γ_k = h_k/2, as if η were infinite.

    Attributes:
        optimizer: Its name; only ``sgd`` steps like this.
        momentum: μ.
        weight_decay: Coefficient of the decay.
        nesterov: Whether momentum is Nesterov's.
        maximize: Whether it ascends.
        stride: Optimizer updates per row.
        loss_change: ``same-batch`` or ``next-batch``.
        hold_share: η_t‖g_t‖² as a share of the loss, where weights were held; 0 where they moved.
    """

    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    stride: int = 1
    loss_change: str = "same-batch"
    hold_share: float = 0.0

    def against_gradients(self) -> str:
        """What makes a row's Δθ differ from −η·g, in words; empty for plain SGD."""
        return ", ".join(self._differences())

    def against_curvature(self, learning_rates: Sequence[float] = (), *, lags: bool = False) -> str:
        """What makes γ differ from −1/η + h/2, in words; empty if nothing does.

        Args:
            learning_rates: Those of the rows, in any order; may be left out if all are equal.
            lags: Whether the fit has lag columns.
        """
        odd = self._differences()
        if lags and not self.momentum:
            odd.append("lags")
        if self.loss_change != "same-batch":
            odd.append(f"{self.loss_change} losses")
        low, high = min(learning_rates, default=0.0), max(learning_rates, default=0.0)
        if low != high and not self.hold_share:
            odd.append(f"learning rates from {low:g} to {high:g}")
        return ", ".join(odd)

    def rate_in_gamma(self, learning_rates: Sequence[float]) -> float:
        """η of γ = −1/η + h/2, where :meth:`against_curvature` has nothing to say; infinite for held steps."""
        return math.inf if self.hold_share else float(learning_rates[0])

    def against_causality(self) -> str:
        """What gives γ no causal reading, in words; empty for SGD, where momentum is modeled by lags.

        γ says how much of the loss change each step's gradient caused, so a row must be made of gradients alone.
        """
        odd = self._differences()
        if self.optimizer == "sgd" and not self.nesterov:
            odd = [one for one in odd if not one.startswith("momentum ")]
        return ", ".join(one for one in odd if not one.startswith("stride "))

    def _differences(self) -> list[str]:
        odd = [
            f"optimizer {self.optimizer}" if self.optimizer != "sgd" else "",
            f"momentum {self.momentum:g}" + (" (Nesterov)" if self.nesterov else "") if self.momentum else "",
            f"weight decay {self.weight_decay:g}" if self.weight_decay else "",
            "steps that ascend" if self.maximize else "",
            f"stride {self.stride}" if self.stride != 1 else "",
        ]
        return [difference for difference in odd if difference]
