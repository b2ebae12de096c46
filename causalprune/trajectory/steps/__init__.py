"""The recorded steps: the scalars of each row, and the update rule that made the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

STEP_FIELDS = ("loss_before", "loss_after", "lr", "epoch", "batch", "grad_norm")
"""The rows of a recording's ``steps`` array, in order; those that a recording declares besides come after them."""


def _dtype(name: str) -> type[np.int64] | type[np.float64]:
    return np.int64 if name in ("epoch", "batch") else np.float64


@dataclass(frozen=True, eq=False)
class Steps:
    """The scalars of T rows; ``steps["lr"]`` is ``steps.lr``, and those that the recording declares go by name only.

    Attributes:
        loss_before: (T,) float64, the loss before the step.
        loss_after: (T,) float64, the loss after it.
        lr: (T,) float64, the learning rate η_t.
        epoch: (T,) int64.
        batch: (T,) int64, number of the batch in its epoch.
        grad_norm: (T,) float64, Euclidean norm of the gradient.
        declared: (T,) float64 each, by the names in :attr:`RecordingInfo.step_scalars
            <causalprune.trajectory.schema.RecordingInfo.step_scalars>`.
    """

    loss_before: np.ndarray
    loss_after: np.ndarray
    lr: np.ndarray
    epoch: np.ndarray
    batch: np.ndarray
    grad_norm: np.ndarray
    declared: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray]) -> Self:
        """Steps of arrays by name; those beside :data:`STEP_FIELDS` are the declared ones."""
        declared = {name: column for name, column in columns.items() if name not in STEP_FIELDS}
        return cls(**{name: columns[name] for name in STEP_FIELDS}, declared=declared)

    @classmethod
    def from_matrix(cls, matrix: np.ndarray, declared: Sequence[str] = ()) -> Self:
        """Copy the columns of a (T, 6 + declared) float64 matrix: :data:`STEP_FIELDS`, then the declared ones."""
        names = (*STEP_FIELDS, *declared)
        return cls.from_columns(
            {name: column.astype(_dtype(name)) for name, column in zip(names, matrix.T, strict=True)}
        )

    @classmethod
    def from_json(cls, value: Any, rows: int, declared: Sequence[str] = ()) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: Not ``rows`` finite numbers per field, or other fields.
        """
        names = (*STEP_FIELDS, *declared)
        if not isinstance(value, dict) or set(value) != set(names):
            raise ValueError("steps without their fields")
        columns = {}
        for name in names:
            dtype = _dtype(name)
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
        return cls.from_columns(columns)

    @classmethod
    def concatenate(cls, parts: list[Steps], declared: Sequence[str] = ()) -> Self:
        """Join the steps of consecutive rows, with the same declared scalars; without parts, there are no rows."""
        parts = parts or [Steps.from_matrix(np.empty((0, len(STEP_FIELDS) + len(declared))), declared)]
        return cls.from_columns({name: np.concatenate([p[name] for p in parts]) for name in parts[0].names})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scalars: :data:`STEP_FIELDS`, then the declared ones."""
        return (*STEP_FIELDS, *self.declared)

    @property
    def loss_change(self) -> np.ndarray:
        """ΔL_t = loss after − loss before, (T,) float64."""
        change: np.ndarray = self.loss_after - self.loss_before
        return change

    def __len__(self) -> int:
        return len(self.loss_before)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in STEP_FIELDS:
            return self.declared[name]
        column: np.ndarray = getattr(self, name)
        return column

    def head(self, rows: int) -> Steps:
        """The first ``rows`` rows."""
        return Steps.from_columns({name: self[name][:rows] for name in self.names})

    def row(self, row: int) -> dict[str, Any]:
        """The scalars of a row by name."""
        return {name: self[name][row].item() for name in self.names}

    def to_json(self) -> dict[str, list[float]]:
        """A JSON-ready dictionary, exact because a float's shortest decimal form reads back as the same float."""
        return {name: self[name].tolist() for name in self.names}

    def to_matrix(self) -> np.ndarray:
        """(6 + declared, T) float64 in the order of :attr:`names`."""
        return np.stack([self[name].astype(np.float64) for name in self.names])


STEP_EXTRAS = ("weight_decay", "nesterov", "maximize")
"""Optimizer settings with which Δθ isn't −η·g; those that are on are in a recording's ``extra``."""


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """How an optimizer made a row's Δθ, and which loss change the row has.

    Plain SGD steps by Δθ_t = −η_t·g_t, the gradient of minibatch t. To second order such a step changes the loss of its
    own minibatch by ΔL_t = Σ_k (−1/η + h_k/2)·Δθ_tk², so that γ_k = −1/η + h_k/2 with the curvature h_k.

    Attributes:
        optimizer: Its name; only ``sgd`` steps like this.
        momentum: μ.
        weight_decay: Coefficient of the decay.
        nesterov: Whether momentum is Nesterov's.
        maximize: Whether it ascends.
        stride: Optimizer updates per row.
        loss_change: ``same-batch`` or ``next-batch``.
    """

    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    stride: int = 1
    loss_change: str = "same-batch"

    def against_gradients(self) -> str:
        """What makes a row's Δθ differ from −η·g, in words; empty for plain SGD."""
        return ", ".join(self._differences())

    def against_curvature(self, learning_rates: npt.ArrayLike = (), *, lags: bool = False) -> str:
        """What makes γ differ from −1/η + h/2, in words; empty if nothing does.

        Args:
            learning_rates: (T,), or (T, G) of G parameter groups, the rows in any order; may be left out if they are
                all equal.
            lags: Whether the fit has lag columns.
        """
        odd = self._differences()
        if lags and not self.momentum:
            odd.append("lags")
        if self.loss_change != "same-batch":
            odd.append(f"{self.loss_change} losses")
        rates = np.asarray(learning_rates, np.float64)
        if rates.size and (rates.min(axis=0) != rates.max(axis=0)).any():
            odd.append(f"learning rates from {rates.min():g} to {rates.max():g}")
        return ", ".join(odd)

    def against_causality(self) -> str:
        """What gives γ no causal reading, in words; empty for SGD, where momentum is modeled by lags.

        γ says how much of the loss change each step's gradient caused, so a row must be made of gradients alone.
        """
        odd = self._differences()
        if self.optimizer == "sgd" and not self.nesterov:
            odd = [one for one in odd if not one.startswith("momentum ")]
        return ", ".join(one for one in odd if not one.startswith("stride "))

    def no_causal_reading(self, where: str) -> str:
        """Say that γ isn't a cause, and what stays valid; empty for SGD.

        Args:
            where: Name of the recording.
        """
        odd = self.against_causality()
        if not odd:
            return ""
        return (
            f"{where} has {odd}, not plain SGD: γ has no causal reading there, it only correlates; criteria that read "
            "neither γ nor recorded gradients, such as magnitude, stay valid"
        )

    def _differences(self) -> list[str]:
        odd = [
            f"optimizer {self.optimizer}" if self.optimizer != "sgd" else "",
            f"momentum {self.momentum:g}" + (" (Nesterov)" if self.nesterov else "") if self.momentum else "",
            f"weight decay {self.weight_decay:g}" if self.weight_decay else "",
            "steps that ascend" if self.maximize else "",
            f"stride {self.stride}" if self.stride != 1 else "",
        ]
        return [difference for difference in odd if difference]
