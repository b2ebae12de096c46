"""How stable a fit's choice of parameters is over resamples of the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating]

THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the resamples for which the columns that reach them are counted."""


def stability(probability: Vector, gamma: Vector) -> dict[str, Any]:
    """How often the columns were selected over resamples of the steps.

    Args:
        probability: (P,) share of the resamples in which a column's γ isn't zero.
        gamma: (P,) |γ| of the fit to all steps.

    Returns:
        ``columns``: how many have at least each of :data:`THRESHOLDS`; ``selected``: the same among those with γ ≠ 0;
        ``nonzero``; ``ever``, how many were selected at all; ``mean_selected``, a resample's mean number of nonzero γ.
    """
    chosen = probability[gamma > 0]
    # Shares of resamples are sums of float32.
    at_least = [t - 1e-4 for t in THRESHOLDS]
    return {
        "thresholds": list(THRESHOLDS),
        "columns": [int((probability >= t).sum()) for t in at_least],
        "selected": [int((chosen >= t).sum()) for t in at_least],
        "nonzero": len(chosen),
        "ever": int((probability > 0).sum()),
        "mean_selected": float(probability.sum(dtype=np.float64)),
    }
