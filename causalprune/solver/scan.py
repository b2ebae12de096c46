"""One pass over all columns in float64: scales and correlations, for the solvers that don't find them on their way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalprune.columns import ColumnSource, Float64
from causalprune.errors import DataError
from causalprune.solver.problem import check_target
from causalprune.solver.scales import NORM_FLOOR


@dataclass(frozen=True, eq=False)
class Scan:
    """What one pass over the columns finds.

    Attributes:
        scale: (P,) s_k in X̃ = X·diag(s); 0 for a column of zeros.
        correlation: (P,) x̃_kᵀy.
    """

    scale: Float64
    correlation: Float64


def scan(source: ColumnSource, normalize: str) -> Scan:
    """Pass over the columns once.

    Raises:
        DataError: Fewer than two rows, a constant y, NaN or infinity.
    """
    y = source.target
    check_target(y)
    norm = np.zeros(source.num_columns)
    correlation = np.zeros(source.num_columns)
    for first, block in source.blocks():
        wide = block.astype(np.float64)
        part = slice(first, first + block.shape[1])
        norm[part] = np.sqrt(np.einsum("ij,ij->j", wide, wide))
        correlation[part] = y @ wide
    if not np.isfinite(norm).all():
        raise DataError(
            f"column {int(np.flatnonzero(~np.isfinite(norm))[0])} of X",
            expected="finite numbers",
            found="NaN or infinity",
        )
    scale = np.zeros_like(norm)
    if normalize == "none":
        scale[norm > 0] = 1.0
    elif norm.any():
        np.divide(1.0, np.maximum(norm, NORM_FLOOR * norm.max()), where=norm > 0, out=scale)
    return Scan(scale, correlation * scale)
