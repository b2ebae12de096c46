"""``obd``: Optimal Brain Damage."""

from __future__ import annotations

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64


def _score(inputs: CriterionInputs) -> Scores:
    """θ_k²·mean(g_k²): Optimal Brain Damage (LeCun, Denker, Solla 1989) with the Fisher diagonal as curvature."""
    return Scores(float64(inputs.theta) ** 2 * float64(inputs.mean_squared_gradient))


OBD = Criterion("obd", _score, frozenset({"mean_squared_gradient"}))
