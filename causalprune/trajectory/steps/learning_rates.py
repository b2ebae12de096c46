"""The learning rate of each row and column, where an optimizer has several parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ParameterGroup:
    """A parameter group of the optimizer of a recording, one of several.

    Attributes:
        parameters: Names of the recorded parameters in it; a group of biases has none.
        lr: Its learning rate when the recording began.
        momentum: Its μ.
        extra: Its settings of :data:`causalprune.trajectory.steps.STEP_EXTRAS` that are on.
    """

    parameters: tuple[str, ...]
    lr: float
    momentum: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Any) -> ParameterGroup:
        """Read what :func:`dataclasses.asdict` made of it.

        Raises:
            ValueError: Something else.
        """
        try:
            group = cls(tuple(value["parameters"]), float(value["lr"]), float(value["momentum"]), dict(value["extra"]))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"group {value!r}") from error
        if not all(isinstance(name, str) for name in group.parameters):
            raise ValueError(f"parameters {group.parameters!r}")
        return group

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back."""
        return asdict(self) | {"parameters": list(self.parameters)}


def group_scalars(number: int) -> tuple[str, str]:
    """Names of the scalars of parameter group ``number``: its learning rate η_t, and the norm of its gradient."""
    return f"lr.{number}", f"grad_norm.{number}"


@dataclass(frozen=True, eq=False)
class LearningRates:
    """η of each row and column.

    Attributes:
        by_group: (T, G) float64, of the parameter groups that have columns.
        group: (P_active,) the position in ``by_group`` of each column; None if all are in one group.
        numbers: Numbers of these groups in the optimizer; the others have no columns.
    """

    by_group: Float64
    group: npt.NDArray[np.int64] | None = None
    numbers: tuple[int, ...] = (0,)

    @classmethod
    def same(cls, lr: npt.ArrayLike) -> LearningRates:
        """(T,) learning rates that hold for all columns."""
        return cls(np.asarray(lr, np.float64)[:, None])

    @classmethod
    def of_groups(
        cls, groups: tuple[ParameterGroup, ...], rates: Mapping[str, np.ndarray], names: npt.NDArray[np.str_]
    ) -> LearningRates:
        """Those of a recording whose optimizer has several groups.

        Args:
            groups: The groups. A parameter in none of them never moves; it counts to the first with columns.
            rates: (T,) of each group, by the name in :func:`group_scalars`.
            names: (P_active,) the parameter of each column.
        """
        used = [number for number, group in enumerate(groups) if np.isin(names, group.parameters).any()] or [0]
        of_column = np.zeros(len(names), np.int64)
        for position, number in enumerate(used):
            of_column[np.isin(names, groups[number].parameters)] = position
        by_group = np.stack([rates[group_scalars(number)[0]] for number in used], axis=1)
        return cls(by_group, of_column if len(used) > 1 else None, tuple(used))

    @property
    def extremes(self) -> tuple[tuple[float, ...], ...]:
        """The lowest and the highest rate of each group; empty without rows."""
        if not len(self.by_group):
            return ()
        return tuple(tuple(rates.tolist()) for rates in (self.by_group.min(axis=0), self.by_group.max(axis=0)))

    @property
    def distinct(self) -> Float64:
        """Every rate once, of any row and group, ascending."""
        return np.unique(self.by_group)

    def block(self, rows: slice | npt.NDArray[np.int64], columns: slice | npt.NDArray[np.int64]) -> Float64:
        """η of some rows and columns: (rows, columns), or (rows, 1) if it is the same for all columns."""
        return self.by_group[rows] if self.group is None else self.by_group[rows][:, self.group[columns]]

    def of_columns(self) -> float | Float64:
        """η of the first row: a number, or (P_active,) if it differs between columns; for rates that stay."""
        first = self.by_group[0]
        return float(first[0]) if self.group is None else first[self.group]

    def __len__(self) -> int:
        return len(self.by_group)
