"""The scalars that belong to each recorded row."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self, cast

import numpy as np

STEP_FIELDS = ("loss_before", "loss_after", "lr", "epoch", "batch", "grad_norm")
"""In the order of the rows of a recording's ``steps`` array."""

_INTEGERS = ("epoch", "batch")


@dataclass(frozen=True, eq=False)
class Steps:
    """The scalars of T rows; ``steps["lr"]`` is ``steps.lr``.

    Attributes:
        loss_before: (T,) float64, the loss before the step.
        loss_after: (T,) float64, the loss after it.
        lr: (T,) float64, the learning rate η_t.
        epoch: (T,) int64.
        batch: (T,) int64, number of the batch in its epoch.
        grad_norm: (T,) float64, Euclidean norm of the gradient.
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
        columns = zip(STEP_FIELDS, matrix.T, strict=True)
        return cls(**{name: column.astype(np.int64 if name in _INTEGERS else np.float64) for name, column in columns})

    @classmethod
    def from_json(cls, value: Any, rows: int) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: Not ``rows`` finite numbers of each.
        """
        if not isinstance(value, dict) or set(value) != set(STEP_FIELDS):
            raise ValueError("steps without their fields")
        columns = {}
        for name in STEP_FIELDS:
            types = {int} if name in _INTEGERS else {int, float}
            items = value[name]
            if not isinstance(items, list) or len(items) != rows or not set(map(type, items)) <= types:
                raise ValueError(f"{name} without {rows} numbers")
            try:
                columns[name] = np.array(items, np.int64 if name in _INTEGERS else np.float64)
            except OverflowError as error:
                raise ValueError(f"{name} out of range") from error
            if name not in _INTEGERS and not np.isfinite(columns[name]).all():
                raise ValueError(f"{name} not finite")
        return cls(**columns)

    @classmethod
    def concatenate(cls, parts: list[Steps]) -> Self:
        """Join the steps of consecutive rows; of no parts, no rows."""
        parts = parts or [Steps.from_matrix(np.empty((0, len(STEP_FIELDS))))]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in STEP_FIELDS})

    @property
    def loss_change(self) -> np.ndarray:
        """ΔL_t = loss after − loss before, (T,) float64."""
        return self.loss_after - self.loss_before

    def __len__(self) -> int:
        return len(self.loss_before)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in STEP_FIELDS:
            raise KeyError(name)
        return cast(np.ndarray, getattr(self, name))

    def head(self, rows: int) -> Steps:
        """The first ``rows`` rows."""
        return Steps(**{f.name: getattr(self, f.name)[:rows] for f in fields(self)})

    def to_json(self) -> dict[str, list[float]]:
        """A JSON-ready dictionary; a float's shortest decimal form gives back the same float."""
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}

    def to_matrix(self) -> np.ndarray:
        """(6, T) float64 in the order of :data:`STEP_FIELDS`."""
        return np.stack([getattr(self, name).astype(np.float64) for name in STEP_FIELDS])
