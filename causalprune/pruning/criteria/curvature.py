"""``curvature``: the saliency of the curvature that a fit implies."""

from __future__ import annotations

from typing import cast

from causalprune.errors import MismatchError
from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64


def _score(inputs: CriterionInputs) -> Scores:
    """½·h_k·θ_k² with h_k = 2(γ_k + 1/η).

    Source: the saliency ½hθ² is that of Optimal Brain Damage (LeCun, Denker, Solla 1989); h from γ is derived here. To
    second order, and with a diagonal Hessian, a step of plain SGD changes the loss of its own minibatch by
    Σ_k(−1/η + h_k/2)·Δθ_k², hence γ_k = −1/η + h_k/2 in the causal model of Shah et al. (arXiv 2412.03035);
    :class:`causalprune.step_rule.UpdateRule` says of which recordings that holds. A coordinate of negative curvature
    has a negative score and goes first.
    """
    gamma = float64(inputs.gamma)
    if gamma.ndim != 1:
        raise MismatchError(
            "criterion curvature",
            expected="a fit without lags",
            found="three coefficients a parameter",
            remedy="fit with --lags 0, or choose another",
        )
    h = 2 * (gamma + 1 / cast(float, inputs.learning_rate))
    return Scores(h * float64(inputs.theta) ** 2 / 2)


CURVATURE = Criterion("curvature", _score, frozenset({"gamma", "learning_rate"}))
