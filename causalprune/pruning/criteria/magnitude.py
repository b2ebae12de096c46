"""``magnitude``: the size of the weight."""

from __future__ import annotations

import numpy as np

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64


def _score(inputs: CriterionInputs) -> Scores:
    """|θ_k| (Han et al., arXiv 1506.02626)."""
    return Scores(np.abs(float64(inputs.theta)))


MAGNITUDE = Criterion("magnitude", _score)
