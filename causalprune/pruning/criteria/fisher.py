"""``fisher``: the curvature that squared gradients stand for."""

from __future__ import annotations

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64


def _score(inputs: CriterionInputs) -> Scores:
    """mean(g_k²) over the recorded minibatch gradients, the diagonal of the empirical Fisher matrix.

    Source: a baseline without a paper of its own. The Fisher diagonal as the curvature of a weight is that of Fisher
    pruning (Theis et al., arXiv 1801.05787), which ranks by its product with θ_k²: criterion ``obd`` here.
    """
    return Scores(float64(inputs.mean_squared_gradient))


FISHER = Criterion("fisher", _score, frozenset({"mean_squared_gradient"}))
