"""``surgeon``: the exact cost of removing a weight when the rest of its unit is fitted again."""

from __future__ import annotations

import torch

from causalprune.pruning.criterion import Criterion, CriterionInputs, Scores
from causalprune.pruning.least_squares import inverse_diagonals
from causalprune.pruning.patches import weight_rows, weights_of


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
    assert inputs.layers is not None
    index, statistics = inputs.layers.index, inputs.layers.statistics
    theta, kept = torch.from_numpy(inputs.theta).double(), torch.from_numpy(inputs.layers.keep)
    cost = torch.zeros(index.total, dtype=torch.float64)
    for entry in index:
        found = statistics[entry.name]
        groups, transposed = len(found.inputs), entry.filter_axis == 1
        weight, keep = (
            weight_rows(part[entry.offset : entry.stop].view(entry.shape), groups, transposed=transposed)
            for part in (theta, kept)
        )
        diagonals = torch.stack([inverse_diagonals(found.inputs[g], keep[g]) for g in range(groups)])
        # An input that is always 0 has a zero diagonal only if it isn't kept.
        rows = torch.where(keep, weight**2 / diagonals.clamp_min(1e-300), 0) * found.gradients[:, :, None] / 2
        cost[entry.offset : entry.stop] = weights_of(rows, torch.Size(entry.shape), transposed=transposed).flatten()
    return Scores(cost.numpy())


SURGEON = Criterion("surgeon", _surgeon, frozenset({"layers"}))
