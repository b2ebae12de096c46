"""Criteria that read what was measured of the layers, without a recording: ``surgeon``, ``wanda`` and ``rank-sum``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores, float64
from causalprune.pruning.layer_statistics import LayerStatistics
from causalprune.pruning.least_squares import inverse_diagonals
from causalprune.pruning.patches import weight_rows, weights_of

_Rows = Callable[[torch.Tensor, torch.Tensor, LayerStatistics], torch.Tensor]
"""Takes the weights of a layer, float64, which of them are kept, and the layer's statistics; returns its scores.

Weights, mask and scores are (groups, units per group, inputs per unit), as :func:`weight_rows` makes them.
"""


def _surgeon(inputs: CriterionInputs) -> Scores:
    """½·w_k²/[(G_SS + λI)⁻¹]_kk·E[δ_o²]: the rise of the loss when w_k goes and the unit's other kept weights adapt.

    G is the second moment of the layer's inputs summed over positions, S the kept inputs of the unit o, δ_o the
    gradient of the loss at its output, with labels drawn as in :mod:`.layer_statistics`: to second order, with the
    Kronecker-factored Fisher matrix G ⊗ diag(E[δ²]) of the layer as its curvature. λ is 10⁻³ of the mean of the
    diagonal of G.

    Source: Optimal Brain Surgeon (Hassibi & Stork 1992) within one layer, as in Dong et al. (arXiv 1705.07565) and
    Frantar & Alistarh (arXiv 2208.11580). The factor E[δ²], which makes layers comparable, is derived here from the
    Kronecker-factored Fisher matrix (Martens & Grosse, arXiv 1503.05671).
    """

    def costs(weight: torch.Tensor, keep: torch.Tensor, found: LayerStatistics) -> torch.Tensor:
        diagonals = torch.stack([inverse_diagonals(gram, kept) for gram, kept in zip(found.inputs, keep, strict=True)])
        # An input that is always 0 has a zero diagonal only if it isn't kept.
        return torch.where(keep, weight**2 / diagonals.clamp_min(1e-300), 0) * found.gradients[:, :, None] / 2

    return Scores(_score_layers(inputs, costs))


def _wanda(inputs: CriterionInputs) -> Scores:
    """|w_oj|·‖x_j‖₂/√N, x_j the layer's input j over the N samples and all positions.

    Its square is the mean over samples of the squared change of the layer's outputs when w_oj goes.

    Source: Sun et al. (arXiv 2306.11695), who compare the weights of one output unit only, so that √N, which is the
    same for all layers, and the number of positions, which isn't, don't matter to them.
    """
    return Scores(_score_layers(inputs, lambda weight, _, found: weight.abs() * found.squares.sqrt()[:, None, :]))


def _rank_sum(inputs: CriterionInputs) -> Scores:
    """rank(|θ_k|) + rank(cost_k), both among the kept weights of all layers, with the cost of ``surgeon``.

    Ranks count from 1 for the lowest; equal values share the mean of their ranks.

    Source: derived here. Size tells what training can do without at moderate sparsity, sensitivity what the network
    can't lose at high sparsity, and ranks add up without a common unit.
    """
    from scipy.stats import rankdata

    assert inputs.mask is not None
    assert inputs.layers is not None
    keep = inputs.mask.numpy().copy()
    for entry in inputs.mask.index:
        if entry.name not in inputs.layers:
            keep[entry.offset : entry.stop] = False
    scores = np.zeros(len(keep))
    for values in (np.abs(float64(inputs.theta)), _surgeon(inputs).primary):
        scores[keep] += rankdata(values[keep])
    return Scores(scores)


def _score_layers(inputs: CriterionInputs, rows: _Rows) -> npt.NDArray[np.float64]:
    """(P,) scores, computed layer by layer on ``inputs.device``; 0 where nothing is known of a layer, which stays."""
    assert inputs.layers is not None
    assert inputs.mask is not None
    index, kept = inputs.mask.index, inputs.mask.keep
    theta = torch.from_numpy(float64(inputs.theta))
    scores = torch.zeros(index.total, dtype=torch.float64)
    for entry in index:
        if entry.name not in inputs.layers:
            continue
        found, transposed = inputs.layers[entry.name].to(inputs.device), entry.filter_axis == 1
        weight, keep = (
            weight_rows(
                part[entry.offset : entry.stop].view(entry.shape).to(inputs.device),
                len(found.inputs),
                transposed=transposed,
            )
            for part in (theta, kept)
        )
        scored = weights_of(rows(weight, keep, found), torch.Size(entry.shape), transposed=transposed)
        scores[entry.offset : entry.stop] = scored.flatten().cpu()
    return scores.numpy()


SURGEON = Criterion("surgeon", _surgeon, frozenset({"layers", "mask"}))
WANDA = Criterion("wanda", _wanda, SURGEON.needs)
RANK_SUM = Criterion("rank-sum", _rank_sum, SURGEON.needs)
