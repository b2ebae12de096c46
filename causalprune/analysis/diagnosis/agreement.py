"""How well two fits agree on which parameters matter, and how stable one fit is over resamples of the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.solver.evidence import spearman
from causalprune.trajectory import Fit

Vector = npt.NDArray[np.floating]

SHARES = (0.01, 0.1, 0.5)
"""Top shares of the columns for which the overlap of two rankings is reported."""

THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Selection probabilities for which the columns that reach them are counted."""


def agreement(first: tuple[Vector, Vector], second: tuple[Vector, Vector]) -> dict[str, Any]:
    """Compare two fits of the same columns.

    Args:
        first: (P,) |γ| and (P,) KKT scores of one fit.
        second: The same of the other fit.

    Returns:
        ``spearman_gamma`` and ``spearman_dual`` (None if either is constant), the rank correlations of |γ| and of the
        KKT scores; and ``overlaps`` of the top k columns by |γ|, then KKT score, with k the smaller number of nonzero γ
        and each of :data:`SHARES`: ``k``, ``share``, the fraction of the k that both fits have, ``chance``, the same
        expected for two random sets, and ``p_value``, the probability of at least this overlap of random sets
        (hypergeometric).
    """
    gamma, other = first[0], second[0]
    columns = len(gamma)
    orders = [np.lexsort((dual, magnitude))[::-1] for magnitude, dual in (first, second)]
    counts = {"nonzero γ": min(int(np.count_nonzero(gamma)), int(np.count_nonzero(other)))}
    counts |= {f"top {share:.0%}": int(share * columns) for share in SHARES}
    return {
        "spearman_gamma": spearman(gamma, other)[0],
        "spearman_dual": spearman(first[1], second[1])[0],
        "overlaps": [_overlap(name, orders, k, columns) for name, k in counts.items() if 0 < k < columns],
    }


def _overlap(name: str, orders: list[npt.NDArray[np.int64]], k: int, columns: int) -> dict[str, Any]:
    from scipy.stats import hypergeom

    common = len(np.intersect1d(orders[0][:k], orders[1][:k]))
    p_value = float(hypergeom.sf(common - 1, columns, k, k))
    return {"name": name, "k": k, "share": common / k, "chance": k / columns, "p_value": p_value}


def magnitudes(fit: Fit) -> tuple[Vector, Vector]:
    """For each column, |γ| summed over the lags and the largest scaled residual correlation."""
    return np.abs(fit.arrays["gamma"]).sum(axis=0), np.abs(fit.arrays["dual_correlation"]).max(axis=0)


def fit_stability(fit: Fit) -> dict[str, Any] | None:
    """``resamples`` and the :func:`stability` of a fit; None if it has no selection probabilities."""
    if "selection_probability" not in fit.arrays:
        return None
    found = stability(fit.arrays["selection_probability"].max(axis=0), magnitudes(fit)[0])
    return {"resamples": fit.attributes["config"]["bootstrap"], **found}


def stability(probability: Vector, gamma: Vector) -> dict[str, Any]:
    """Count how often the columns are selected over resamples of the steps.

    Args:
        probability: (P,) selection probability: the share of the resamples in which a column's γ isn't zero.
        gamma: (P,) |γ| of the fit to all steps.

    Returns:
        ``thresholds``, that is :data:`THRESHOLDS`; ``columns``, the number of columns that reach each of them;
        ``selected``, the same among the columns with γ ≠ 0; ``nonzero``, the number of the latter; ``ever``, the number
        of columns selected at least once; ``mean_selected``, the mean number of nonzero γ per resample.
    """
    chosen = probability[gamma > 0]
    # The probabilities are sums in float32.
    at_least = [t - 1e-4 for t in THRESHOLDS]
    return {
        "thresholds": list(THRESHOLDS),
        "columns": [int((probability >= t).sum()) for t in at_least],
        "selected": [int((chosen >= t).sum()) for t in at_least],
        "nonzero": len(chosen),
        "ever": int((probability > 0).sum()),
        "mean_selected": float(probability.sum(dtype=np.float64)),
    }
