"""``obd``: Optimal Brain Damage."""

from __future__ import annotations

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64


def _score(inputs: CriterionInputs) -> Scores:
    """θ_k²·mean(g_k²): Optimal Brain Damage with the diagonal of the empirical Fisher matrix as curvature.

    Source: LeCun, Denker, Solla 1989, who rank by ½hθ²; with this diagonal for h Theis et al. (arXiv 1801.05787).
    """
    return Scores(float64(inputs.theta) ** 2 * float64(inputs.mean_squared_gradient))


OBD = Criterion("obd", _score, frozenset({"mean_squared_gradient"}))
