"""How much each recorded gradient counts in the Hessian: by the curvature that its held step measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.pruning.gradients import GradientMatrix

LEAST = 1e-6
"""Smallest weight of a row, as a multiple of the mean: a first-order term needs some curvature along each gradient."""

MOST_FLAGGED = 0.5
"""Share of flagged rows above which the measured curvature isn't used."""


@dataclass(frozen=True, eq=False)
class RowWeights:
    """The d_t of H = Σ_t d_t·g_t g_tᵀ + nλI.

    Attributes:
        values: (n,) float64 above 0.
        remark: Why they aren't the measured curvature; empty if they are.
    """

    values: npt.NDArray[np.float64]
    remark: str = ""


def row_weights(gradients: GradientMatrix) -> RowWeights:
    """The measured curvature d_t = g_tᵀH_tg_t/‖g_t‖⁴ of a held recording, or 1 for every row.

    For a classifier with two classes and one sample in a minibatch, H_t = d_t·g_t g_tᵀ, up to the second derivatives of
    the network: then Σ d_t·g_t g_tᵀ is the Gauss-Newton matrix itself, where the empirical Fisher matrix, all d_t = 1,
    leaves out the samples that the network is sure of. A quadratic model is convex, so a d_t below 0 counts as 0. The
    cap on d_t is the largest that isn't flagged: d_t is largest where the gradient is smallest, and there rounding
    makes it what it likes. No data but the recording decide. If more than half of the rows with a gradient are flagged,
    as where the losses are in float32, d_t is 1.

    Source: derived here; see :func:`causalprune.pruning.gradients.measured_curvature` for d_t.
    """
    measured = gradients.curvature
    if measured is None:
        alike = "of a recording that doesn't hold the weights every gradient counts alike (`hold` measures curvature)"
        return RowWeights(np.ones(gradients.num_rows), alike)
    counted, sound = measured.values != 0, ~measured.noisy
    flagged = 1 - int(np.sum(sound & counted)) / max(1, int(np.sum(counted)))
    cap = float(measured.values[sound].max(initial=0))
    if flagged > MOST_FLAGGED or cap <= 0:
        doubt = f"{100 * flagged:.0f}% of the rows are flagged" if cap > 0 else "no row has curvature above 0"
        return RowWeights(np.ones(gradients.num_rows), f"every gradient counts alike, because {doubt}")
    values = np.clip(measured.values, 0, cap)
    return RowWeights(np.maximum(values, LEAST * values.mean()))
