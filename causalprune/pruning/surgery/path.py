"""Optimal brain surgery on H = Σ_t d_t·g_t g_tᵀ + nλI: one order of the weights that gives every sparsity."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from causalprune.pruning.least_squares import cholesky, with_penalty
from causalprune.pruning.surgery.rows import Positions, WeightedRows

Vector = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RATIO = 0.8
"""Share of the weights that a step of the path keeps, as long as they are many."""

FEW = 512
"""So many weights are pruned one by one at the end."""


def surgery_order(
    rows: WeightedRows,
    gram: torch.Tensor,
    theta: Vector,
    candidates: Bools,
    penalty: float,
    target: Vector,
    *,
    ratio: float = RATIO,
    few: int = FEW,
) -> Positions:
    """The order in which optimal brain surgery prunes, from the first weight to the last.

    The loss around w̄ is ½‖B(w − w̄)‖² + tᵀB(w − w̄) + (ρ/2)‖w − w̄‖², the rows of B being √d_t·g_t. While the weights S
    are kept, the optimum is w_S = w̄_S + B_Sᵀy with

        y = M⁻¹(b − t),   M = B_S B_Sᵀ + ρI,   b = B_Sᶜ w̄_Sᶜ,

    and without w_k it is worse by cost_k = ½·w_k²/[H_SS⁻¹]_kk, where ρ·[H_SS⁻¹]_kk = 1 − B_kᵀM⁻¹B_k (Hassibi & Stork
    1992, through the n × n matrix of Woodbury's formula). The least cost goes, and all others adapt. Of many weights
    the least costs go at once, as if none of these changed another; the last ones go one by one, with H_SS⁻¹ itself.
    Equal costs go in the order of their numbers.

    Nothing depends on a sparsity: whatever it is, the weights that are first in the order go.

    Time: about n²·|S| operations in each step, 1/(1 − ratio) times that of the first in all, beside some n³ in each.
    Memory: the gradients, or a block of them; some n × n matrices; some vectors.

    Args:
        rows: B, (n, C).
        gram: B·Bᵀ, (n, n).
        theta: (C,) w̄.
        candidates: (C,) which weights may be pruned; the others only adapt.
        penalty: ρ > 0.
        target: (n,) t; zeros without a first-order term.
        ratio: Share of the weights that a step keeps.
        few: How many go one by one at the end, at least 1.

    Returns:
        (number of candidates,) int64, the candidates' column numbers, first pruned first.

    Raises:
        NumericalError: The equations are singular; with a larger penalty they aren't.
    """
    kept, order = np.arange(len(theta)), [np.empty(0, np.int64)]
    whole = torch.from_numpy(theta).to(rows.device)
    right = -torch.from_numpy(target).to(rows.device)
    while len(kept) > few and candidates[kept].any():
        factor = _cholesky(with_penalty(gram, penalty))
        dual = torch.cholesky_solve(right[:, None], factor)[:, 0]
        inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False)
        rows = rows.narrowed(kept)
        dots, norms = rows.dot_and_norms(dual, inverse, kept)
        # Below 1 up to rounding.
        rest = (1 - norms).clamp_min(torch.finfo(torch.float32).eps)
        costs = ((whole[torch.from_numpy(kept)] + dots).square() / rest).cpu().numpy()
        costs[~candidates[kept]] = np.inf
        count = len(kept) - max(few, math.floor(ratio * len(kept)))
        first = np.argsort(costs, kind="stable")[: min(count, np.count_nonzero(candidates[kept]))]
        order.append(kept[first])
        stays = np.ones(len(kept), bool)
        stays[first] = False
        gone, kept = kept[~stays], kept[stays]
        lost, pulled = rows.gram_and_dot(whole[torch.from_numpy(gone)], gone)
        gram, right = gram - lost, right + pulled
    if candidates[kept].any():
        last = _one_by_one(rows.columns(kept), whole[torch.from_numpy(kept)], candidates[kept], penalty, right)
        order.append(kept[last])
    return np.concatenate(order)


def _one_by_one(
    columns: torch.Tensor, theta: torch.Tensor, candidates: Bools, penalty: float, right: torch.Tensor
) -> Positions:
    """The order of the last weights, each by the exact costs after the one before.

    Removing w_k from S: w ← w − C_:k·w_k/C_kk and C ← C − C_:k C_k:/C_kk, where C = H_SS⁻¹.
    """
    dual = torch.cholesky_solve(right[:, None], _cholesky(with_penalty(columns @ columns.T, penalty)))[:, 0]
    weights = theta + columns.T @ dual
    inverse = torch.cholesky_inverse(_cholesky(with_penalty(columns.T @ columns, penalty)))
    left = torch.from_numpy(candidates).to(theta.device)
    order = np.empty(int(candidates.sum()), np.int64)
    for number in range(len(order)):
        costs = torch.where(left, weights.square() / inverse.diagonal(), math.inf)
        least = int(costs.argmin())
        order[number] = least
        column = inverse[:, least].clone()
        weights -= column * (weights[least] / column[least])
        inverse -= torch.outer(column / column[least], column)
        # What is gone must not come back by rounding; its diagonal is never read.
        left[least] = False
        inverse[least] = inverse[:, least] = 0
        inverse[least, least] = 1
    return order


def surgery_weights(rows: WeightedRows, theta: Vector, keep: Bools, penalty: float, target: Vector) -> Vector:
    """The optimum on the kept weights: w_S = w̄_S + B_Sᵀ(B_S B_Sᵀ + ρI)⁻¹(B_Sᶜ w̄_Sᶜ − t), and 0 elsewhere.

    Args:
        rows: B, (n, C).
        theta: (C,) w̄.
        keep: (C,) S.
        penalty: ρ > 0.
        target: (n,) t.

    Raises:
        NumericalError: The equations are singular; with a larger penalty they aren't.
    """
    stays, gone = np.flatnonzero(keep), np.flatnonzero(~keep)
    pulled = rows.dot(torch.from_numpy(theta[gone]).to(rows.device), gone)
    right = pulled - torch.from_numpy(target).to(rows.device)
    factor = _cholesky(with_penalty(rows.gram(stays), penalty))
    dual = torch.cholesky_solve(right[:, None], factor)[:, 0]
    new = np.zeros(len(theta))
    new[stays] = theta[stays] + rows.dot_transposed(dual, stays).cpu().numpy()
    return new


_cholesky = partial(
    cholesky,
    subject="the equations of the recorded gradients",
    expected="a penalty that makes them regular",
    found="one lost in rounding",
    remedy="take a larger `ridge`",
)
