"""Noise tolerance: the loss when Gaussian noise is added to the parameters that aren't pruned."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from causalprune.analysis.flatness.samples import ParameterVector, Samples, mean_loss
from causalprune.base.runtime import keyed_seed

SIGMAS = tuple(float(f"{s:.2g}") for s in np.logspace(-5, -1, 9))
"""1e-5 to 1e-1, two per decade."""


def noise_tolerance(
    model: nn.Module, loss: nn.Module, parameters: ParameterVector, samples: Samples, *, draws: int, seed: int = 0
) -> dict[str, Any]:
    """L(θ + σz)/L(θ) with z ~ N(0, 1) for each parameter that isn't pruned, over several draws of z.

    A draw uses the same z for all σ, so that its curve is smooth. The parameters are restored.

    Args:
        model: In evaluation mode.
        loss: With ``reduction="mean"``.
        parameters: Its parameters; pruned weights stay zero.
        samples: What the loss is averaged over.
        draws: Number of draws of z.
        seed: Seed of the draws.

    Returns:
        ``loss``, that without noise; ``sigma``; ``mean`` and ``std`` of the relative loss at each σ, None if a loss
        isn't finite or the loss without noise is 0; ``draws``.
    """
    table = np.full((draws, len(SIGMAS)), np.nan)
    with parameters.restored() as origin:
        base = mean_loss(model, loss, samples)
        for draw in range(draws):
            direction = parameters.noise(keyed_seed(seed, "noise", draw))
            for place, sigma in enumerate(SIGMAS):
                parameters.move(origin, (sigma, direction))
                table[draw, place] = mean_loss(model, loss, samples)
    relative = table / base if base > 0 else np.full_like(table, np.nan)
    columns = [column if np.isfinite(column).all() else None for column in relative.T]
    return {
        "loss": base,
        "sigma": list(SIGMAS),
        "mean": [None if c is None else float(c.mean()) for c in columns],
        "std": [None if c is None or draws < 2 else float(c.std(ddof=1)) for c in columns],
        "draws": draws,
    }
