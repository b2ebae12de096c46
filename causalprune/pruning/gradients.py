"""Squared gradients from a recording, without a single new backward pass."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from causalprune.errors import DataError


def mean_squared_gradient(
    blocks: Iterable[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]],
) -> npt.NDArray[np.float64]:
    """Diagonal of the empirical Fisher matrix, (1/T)·Σ_t g_t², of a plain-SGD recording.

    Plain SGD steps by Δθ_t = −η_t·g_t, so that g_t = −Δθ_t/η_t is the gradient of minibatch t. That doesn't hold with
    momentum. In a row that sums several steps (a stride), g is their summed gradient.

    Args:
        blocks: Blocks of rows in any order: signed deltas (rows, columns) and learning rates (rows,).

    Returns:
        (columns,) float64, in units of loss² per weight².

    Raises:
        DataError: No rows, or a learning rate that isn't a finite number above 0.
    """
    total: npt.NDArray[np.float64] | None = None
    rows = 0
    for delta, lr in blocks:
        if not (np.isfinite(lr).all() and (lr > 0).all()):
            raise DataError("recorded learning rates", expected="finite numbers above 0", found="another value")
        if total is None:
            total = np.zeros(delta.shape[1])
        for row, rate in zip(delta, lr, strict=True):
            total += np.square(row / rate, dtype=np.float64)
        rows += len(delta)
    if total is None or rows == 0:
        raise DataError("recording", expected="at least one step", found="none", remedy="record first")
    return total / rows
