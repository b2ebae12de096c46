"""``chita``: the weights to keep and their new values, from a quadratic model of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, Vector, float64
from causalprune.pruning.gradients import GradientMatrix
from causalprune.pruning.hard_threshold import solve_sparse

Bools = npt.NDArray[np.bool_]


def _score(inputs: CriterionInputs) -> Scores:
    """Solve min ½‖A(w − w̄)‖² + (nλ/2)‖w − w̄‖² over the supports that the selection allows.

    A are the n recorded minibatch gradients, w̄ the weights of the checkpoint, and nλ the ridge times the mean over the
    parameters of ‖A_k‖². The kept parameters get the weights w. The scores are what the last hard threshold ranked by,
    so that the selection keeps the support of w.

    Source: Benbaki et al., arXiv 2302.14623; how it is solved stands in :mod:`causalprune.pruning.hard_threshold`.
    """
    gradients = cast(GradientMatrix, inputs.gradients)
    project = cast(Callable[[Vector], Bools], inputs.project)
    theta: npt.NDArray[np.float64] = float64(inputs.theta)
    columns = gradients.columns

    def project_columns(squares: Vector) -> Bools:
        return project(_spread(squares, columns, theta.size))[columns]

    solution = solve_sparse(gradients, theta[columns], inputs.ridge, project_columns)
    return Scores(_spread(solution.ranking, columns, theta.size), theta=_spread(solution.theta, columns, theta.size))


def _spread(values: Vector, columns: npt.NDArray[np.int64], size: int) -> Vector:
    full = np.zeros(size)
    full[columns] = values
    return full


CHITA = Criterion("chita", _score, frozenset({"gradients", "project"}), reweights=True)
