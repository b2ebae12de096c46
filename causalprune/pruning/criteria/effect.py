"""``effect``: the loss change that the fitted model predicts for setting a weight to zero."""

from __future__ import annotations

from typing import cast

from causalprune.pruning.criteria.gamma import GAMMA
from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, Vector, float64


def _score(inputs: CriterionInputs) -> Scores:
    """|γ_k|·θ_k²: setting θ_k to zero is the step Δθ_k = −θ_k, for which the fit predicts the loss change γ_k·θ_k².

    Source: derived here from the causal model ΔL = Σ_k γ_k·Δθ_k² of Shah et al. (arXiv 2412.03035), who rank by |γ_k|.
    Zeros are ordered by the dual correlation times θ_k². Lags are combined as in ``gamma``.
    """
    squared = float64(inputs.theta) ** 2
    gamma = GAMMA.score(inputs)
    return Scores(gamma.primary * squared, cast(Vector, gamma.secondary) * squared)


EFFECT = Criterion("effect", _score, GAMMA.needs)
