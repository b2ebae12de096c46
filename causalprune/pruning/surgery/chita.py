"""The criterion ``chita``: the weights to keep and their new values, from a quadratic model of the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from causalprune.base.errors import DataError
from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64
from causalprune.pruning.criterion import Vector as AnyVector
from causalprune.pruning.gradients import GradientMatrix
from causalprune.pruning.surgery.kept import kept_or_computed

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_ITERATIONS = 200
DOUBLINGS = 40
HALVINGS = 12
TOLERANCE = 1e-9
"""Smallest relative decrease of the objective with which the search goes on."""


def solve_sparse(
    gradients: GradientMatrix, theta: Vector, ridge: float, project: Callable[[Vector], Bools]
) -> tuple[Vector, Support, int]:
    """Minimize ½‖A(w − w̄)‖² + (nλ/2)‖w − w̄‖² over the weights w whose support is allowed.

    Benbaki et al., arXiv 2302.14623: iterative hard thresholding, w ← P(w − τ·∇), from the largest |w̄|, then least
    squares on the support. Because n is small, more is possible here. Each support S is valued by its own optimum,
    for which the n × n dual form

        min_w = ½·nλ·bᵀ(A_S A_Sᵀ + nλI)⁻¹b + (nλ/2)‖w̄_Sᶜ‖²,   b = A_Sᶜ w̄_Sᶜ,

    needs only the columns that enter or leave S. The step τ is doubled from 1/L, where L is the largest eigenvalue of
    AᵀA + nλI, as long as that value falls. If no τ improves it, weights are exchanged: those whose entering gains more
    than the leaving of others costs, both computed exactly for each weight alone (this step is ours). Every support is
    better than the one before. The last one need not be the best of all, because the problem is NP-hard.

    Time: n²·C operations at the start and in each exchange, n·C in each hard threshold. Memory: a few n × n matrices,
    a block of gradients, and a few vectors.

    Args:
        gradients: A, (n, C).
        theta: (C,) w̄.
        ridge: nλ as a multiple of the mean over the columns of ‖A_k‖², > 0, so it means the same at any batch size.
        project: Takes squared weights and returns the allowed support that keeps the most of them; for ‖w‖₀ ≤ k, the
            k largest.

    Returns:
        (C,) weights, 0 off the support; a support that no step of the search improves; the number of improvements.

    Raises:
        DataError: All gradients are zero.
    """
    trace, largest = kept_or_computed("spectrum", gradients.identity or None, lambda: _spectrum(gradients))
    penalty = ridge * trace / len(theta)
    if penalty == 0:
        raise DataError("gradients of the recording", expected="some that aren't 0", found="every one 0")
    smallest_step = 1 / (largest + penalty)
    search = _Search(gradients, theta, penalty, project)
    support = search.start()
    iterations = 0
    while iterations < MAX_ITERATIONS:
        better = search.threshold(support, smallest_step) or search.exchange(support)
        if better is None:
            break
        support, iterations = better, iterations + 1
    new = np.where(support.keep, theta + gradients.dot_transposed(support.dual), 0)
    return new, support, iterations


def _spectrum(gradients: GradientMatrix) -> tuple[float, float]:
    """The trace and the largest eigenvalue of A·Aᵀ, the same whatever is pruned."""
    whole = gradients.gram()
    return float(np.trace(whole)), float(np.linalg.eigvalsh(whole)[-1])


@dataclass(frozen=True, eq=False)
class Support:
    """A support S and its value.

    Attributes:
        keep: (C,) bool.
        ranking: (C,) float64 that ``project`` turned into the support.
        gram: A_S A_Sᵀ, (n, n).
        residual: b = A_Sᶜ w̄_Sᶜ, (n,).
        dual: (A_S A_Sᵀ + nλI)⁻¹·b, (n,); the optimum on S is w̄_S + A_Sᵀ·dual.
        value: The objective at this optimum.
    """

    keep: Bools
    ranking: Vector
    gram: Matrix
    residual: Vector
    dual: Vector
    value: float


class _Search:
    def __init__(
        self, gradients: GradientMatrix, theta: Vector, penalty: float, project: Callable[[Vector], Bools]
    ) -> None:
        self._gradients, self._theta, self._penalty, self._project = gradients, theta, penalty, project

    def start(self) -> Support:
        """The support of the largest |w̄|."""
        ranking = np.square(self._theta)
        keep = self._project(ranking)
        gone = np.flatnonzero(~keep)
        gram = self._gradients.gram(np.flatnonzero(keep))
        return self._valued(keep, ranking, gram, self._gradients.dot(self._theta[gone], gone))

    def threshold(self, support: Support, smallest_step: float) -> Support | None:
        """The best support from hard thresholding w − τ·∇ while τ doubles, or None if none is better."""
        pull = self._gradients.dot_transposed(support.dual)
        # At the optimum on S, A(w − w̄) is −nλ·dual and the gradient on S is 0.
        weights = np.where(support.keep, self._theta + pull, 0)
        downhill = np.where(support.keep, 0, self._penalty * (pull + self._theta))
        best, tried = support, support.keep
        for doubling in range(DOUBLINGS):
            ranking = np.square(weights + smallest_step * 2.0**doubling * downhill)
            keep = self._project(ranking)
            if np.array_equal(keep, tried):
                continue
            tried = keep
            candidate = self._move(support, keep, ranking)
            if candidate.value >= best.value * (1 - TOLERANCE):
                break
            best = candidate
        return None if best is support else best

    def exchange(self, support: Support) -> Support | None:
        """A better support by the exact cost or gain of each weight alone, or None.

        With M = A_S A_Sᵀ + nλI, q_k = A_kᵀM⁻¹A_k and u = w̄ + Aᵀ·dual: setting w_k to zero costs ½·nλ·u_k²/(1 − q_k)
        (Optimal Brain Surgeon; Hassibi, Stork 1992), and letting it enter gains ½·nλ·u_k²/(1 + q_k). All exchanges
        together may be worse; then the gains are halved, so that fewer weights enter.
        """
        inverse = np.linalg.inv(self._shifted(support.gram))
        pull, q = self._gradients.dot_transposed(support.dual), self._gradients.quadratic(inverse)
        squares = np.square(self._theta + pull)
        # On S, q_k < 1 up to rounding.
        cost = np.where(support.keep, squares / np.maximum(1 - q, np.finfo(float).eps), 0)
        gain = np.where(support.keep, 0, squares / (1 + q))
        tried = support.keep
        for halving in range(HALVINGS):
            ranking = cost + gain * 0.5**halving
            keep = self._project(ranking)
            if np.array_equal(keep, tried):
                continue
            tried = keep
            candidate = self._move(support, keep, ranking)
            if candidate.value < support.value * (1 - TOLERANCE):
                return candidate
        return None

    def _move(self, support: Support, keep: Bools, ranking: Vector) -> Support:
        """Value another support from the columns in which the two differ."""
        entering, leaving = np.flatnonzero(keep & ~support.keep), np.flatnonzero(support.keep & ~keep)
        gram = support.gram + self._gradients.gram(entering) - self._gradients.gram(leaving)
        residual = support.residual - self._gradients.dot(self._theta[entering], entering)
        residual += self._gradients.dot(self._theta[leaving], leaving)
        return self._valued(keep, ranking, gram, residual)

    def _valued(self, keep: Bools, ranking: Vector, gram: Matrix, residual: Vector) -> Support:
        dual = cho_solve(cho_factor(self._shifted(gram), lower=True, overwrite_a=True), residual)
        gone = self._theta[~keep]
        value = self._penalty / 2 * float(residual @ dual + gone @ gone)
        return Support(keep, ranking, gram, residual, dual, value)

    def _shifted(self, gram: Matrix) -> Matrix:
        """A_S A_Sᵀ + nλI."""
        shifted = gram.copy()
        shifted[np.diag_indices_from(shifted)] += self._penalty
        return shifted


def _score(inputs: CriterionInputs) -> Scores:
    """The minimizer of ½‖A(w − w̄)‖² + (nλ/2)‖w − w̄‖² over the supports that the selection allows.

    A holds the n recorded minibatch gradients, w̄ the weights of the checkpoint; nλ is the ridge times the mean over
    the parameters of ‖A_k‖². The kept parameters get the weights w. The scores are the ranking of the last hard
    threshold, so that the selection keeps exactly the support of w.

    Source: Benbaki et al., arXiv 2302.14623; see :func:`solve_sparse` for the algorithm.
    """
    gradients = cast(GradientMatrix, inputs.gradients)
    project = cast(Callable[[AnyVector], Bools], inputs.project)
    theta: Vector = float64(inputs.theta)
    columns = gradients.columns

    def spread(values: Vector) -> Vector:
        full = np.zeros(theta.size)
        full[columns] = values
        return full

    new, support, _ = solve_sparse(gradients, theta[columns], inputs.ridge, lambda v: project(spread(v))[columns])
    return Scores(spread(support.ranking), theta=spread(new))


CHITA = Criterion("chita", _score, frozenset({"gradients", "project"}), reweights=True)
