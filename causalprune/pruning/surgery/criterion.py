"""The criterion ``obs``: Optimal Brain Surgeon over the whole network, on recorded gradients."""

from __future__ import annotations

import hashlib
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from causalprune.base.compute.precision import full_precision
from causalprune.base.errors import DataError
from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64
from causalprune.pruning.gradients import GradientMatrix
from causalprune.pruning.surgery.curvature import row_weights
from causalprune.pruning.surgery.kept import kept_or_computed
from causalprune.pruning.surgery.path import surgery_order, surgery_weights
from causalprune.pruning.surgery.rows import WeightedRows


@full_precision()
def _score(inputs: CriterionInputs) -> Scores:
    """The place of each weight in the order in which optimal brain surgery prunes.

    The loss around the weights w̄ of the checkpoint is ½(w − w̄)ᵀH(w − w̄), H = Σ_t d_t·g_t g_tᵀ + nλI, with the
    recorded gradients g_t, their measured curvature d_t (1 where nothing was measured), and nλ the ridge times the mean
    of the diagonal of Σ_t d_t·g_t g_tᵀ. With ``first_order``, Σ_t g_tᵀ(w − w̄) is added. The weight whose removal costs
    least when all others adapt goes first. The kept weights get the optimum on the support that the selection makes.

    Source: Hassibi & Stork 1992, for H of a whole network by Woodbury's formula as in Singh & Alistarh (arXiv
    2004.14340), who take d_t = 1. d_t is derived here, see :func:`causalprune.pruning.surgery.curvature.row_weights`;
    the first-order term is that of Benbaki et al. (arXiv 2302.14623).
    """
    gradients = cast(GradientMatrix, inputs.gradients)
    columns = gradients.columns
    theta = float64(inputs.theta)[columns]
    free = np.ones(inputs.theta.size, bool) if inputs.candidates is None else inputs.candidates
    found = row_weights(gradients)
    rows = WeightedRows(gradients, found.values, torch.device(inputs.device))
    target = 1 / np.sqrt(found.values) if inputs.first_order else np.zeros(len(found.values))

    def order() -> tuple[float, npt.NDArray[np.int64]]:
        gram = rows.gram()
        penalty = inputs.ridge * float(gram.trace()) / len(theta)
        if penalty == 0:
            raise DataError("gradients of the recording", expected="some that aren't 0", found="every one 0")
        return penalty, surgery_order(rows, gram, theta, free[columns], penalty, target)

    penalty, pruned_first = kept_or_computed("surgery", _key(gradients, inputs, theta, free[columns]), order)
    # Without a column are those that are pruned already, and their scores are ignored.
    scores = np.zeros(inputs.theta.size)
    scores[columns] = len(theta) + 1
    scores[columns[pruned_first]] = 1 + np.arange(len(pruned_first))
    keep = cast(Any, inputs.project)(scores)
    theta_new = np.zeros(inputs.theta.size)
    theta_new[columns] = surgery_weights(rows, theta, keep[columns], penalty, target)
    return Scores(scores, theta=theta_new, remarks=(found.remark,) if found.remark else ())


def _key(gradients: GradientMatrix, inputs: CriterionInputs, theta: npt.NDArray[Any], free: npt.NDArray[Any]) -> object:
    """Everything that decides the order, if it is known which recording it is."""
    if not gradients.identity:
        return None
    digest = hashlib.sha256(theta.tobytes() + free.tobytes()).hexdigest()
    return gradients.identity, digest, inputs.ridge, inputs.first_order, str(inputs.device)


OBS = Criterion("obs", _score, frozenset({"gradients", "project"}), reweights=True, first_order=True)
