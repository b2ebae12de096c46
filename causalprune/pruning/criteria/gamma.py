"""``gamma``: the Granger coefficient."""

from __future__ import annotations

import numpy as np

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, Vector, float64


def _score(inputs: CriterionInputs) -> Scores:
    """|γ_k|, and among equals |x_kᵀr|/(Tα): how near a column with γ_k = 0 is to entering the model.

    Source: Shah et al., arXiv 2412.03035; the order of the zeros is the KKT condition of the Lasso. With momentum the
    three lag coefficients count as Σ|γ| (zero only if all three are) and their largest dual correlation.
    """
    return Scores(
        np.abs(_over_lags(inputs.gamma)).sum(axis=0),
        np.abs(_over_lags(inputs.dual_correlation)).max(axis=0),
    )


def _over_lags(value: Vector | None) -> Vector:
    """(lags, P), where a model without lags has one."""
    return np.atleast_2d(float64(value))


GAMMA = Criterion("gamma", _score, frozenset({"gamma", "dual_correlation"}))
