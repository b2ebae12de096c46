"""``lamp``: the square of a weight as a share of its layer's squares that are no smaller."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64


def _lamp(inputs: CriterionInputs) -> Scores:
    """:func:`lamp_scores` of the kept weights of each layer."""
    assert inputs.mask is not None
    keep, squared = inputs.mask.numpy(), float64(inputs.theta) ** 2
    scores = np.zeros(len(keep))
    for entry in inputs.mask.index:
        kept = entry.offset + np.flatnonzero(keep[entry.offset : entry.stop])
        scores[kept] = lamp_scores(squared[kept])
    return Scores(scores)


def lamp_scores(squared: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """w_u²/Σ_{v ≥ u} w_v², where the n weights of one layer are numbered in ascending order of w².

    Source: Lee et al. (arXiv 2010.07611). Within a layer the order is that of w², and the largest weight has score 1,
    so that a global ranking empties no layer before all others. Equal weights keep their order: the later one has the
    higher score.

    Args:
        squared: (n,) squares of one layer's kept weights.

    Returns:
        (n,) float64 in [0, 1], in the order of ``squared``; 0 for a weight that is 0.
    """
    order = np.argsort(squared, kind="stable")
    ascending = np.asarray(squared, dtype=np.float64)[order]
    rest = np.cumsum(ascending[::-1])[::-1]
    scores = np.zeros(len(order))
    scores[order] = np.divide(ascending, rest, out=np.zeros(len(order)), where=rest > 0)
    return scores


LAMP = Criterion("lamp", _lamp, frozenset({"mask"}))
