"""``fisher``: the curvature that squared gradients stand for."""

from __future__ import annotations

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64


def _score(inputs: CriterionInputs) -> Scores:
    """mean(g_k²), the diagonal of the empirical Fisher matrix."""
    return Scores(float64(inputs.mean_squared_gradient))


FISHER = Criterion("fisher", _score, frozenset({"mean_squared_gradient"}))
