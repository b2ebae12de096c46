"""The factors s_j of the scaled columns x̃_j = s_j·x_j, known better with every block that is read."""

from __future__ import annotations

import math

import numpy as np

from causalprune.columns import Float64
from causalprune.solver.pool import Positions
from causalprune.solver.products import norm_error

NORM_FLOOR = 1e-9
"""Columns with less than this share of the largest norm keep that floor's scale: a unit norm would promote noise."""


class ColumnScales:
    """Norms and scales of a range of columns.

    Args:
        num_rows: T.
        num_columns: Columns of the range.
        normalize: ``none``: one power of two for all, so that nothing is rounded; ``column``: 1/‖x_j‖.

    Attributes:
        by_norm: Whether each column is scaled by its norm.
        norm: (n,) float32 ‖x_j‖, 0 of columns that weren't read yet.
        largest_norm: Of the columns read so far.
        unit: The power of two; 0 before a column that isn't zero was read.
    """

    def __init__(self, num_rows: int, num_columns: int, normalize: str) -> None:
        self.by_norm = normalize == "column"
        self.norm = np.zeros(num_columns, np.float32)
        self.largest_norm = 0.0
        self.unit = 0.0
        self._norm_error = norm_error(num_rows)

    def measure(self, start: int, norms: Float64) -> None:
        """Note ‖x_j‖ of the columns from ``start`` on."""
        self.norm[start : start + len(norms)] = norms
        largest = float(norms.max(initial=0.0))
        if self.unit == 0.0 and largest > 0:
            self.unit = 2.0 ** -math.floor(math.log2(largest))
        self.largest_norm = max(self.largest_norm, largest)

    def of(self, ids: Positions | slice) -> tuple[Float64, Float64]:
        """s_j and an upper bound of ‖x̃_j‖."""
        norm = self.norm[ids].astype(np.float64)
        if self.by_norm:
            floored = np.maximum(norm, NORM_FLOOR * self.largest_norm)
            scale = np.divide(1.0, floored, where=norm > 0, out=np.zeros_like(norm))
        else:
            scale = np.where(norm > 0, self.unit, 0.0)
        return scale, scale * norm * (1 + self._norm_error)

    def any_floored(self, start: int, stop: int) -> bool:
        """Whether the floor decides the scale of any of these columns."""
        norm = self.norm[start:stop]
        return bool(((norm > 0) & (norm < NORM_FLOOR * self.largest_norm)).any())
