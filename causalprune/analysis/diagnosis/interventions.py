"""What setting weights to zero does to the loss, and how well something predicted it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalprune.analysis.flatness.samples import Samples, mean_loss
from causalprune.models.parameters import ParameterIndex
from causalprune.solver.evidence import spearman

FEWEST = 8
"""Interventions below which a correlation says nothing."""

Positions = npt.NDArray[np.int64]


@torch.no_grad()
def zeroed_loss_changes(
    model: nn.Module,
    index: ParameterIndex,
    loss: nn.Module,
    samples: Samples,
    sets: Sequence[Positions],
    notify: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float64]:
    """L(θ with a set of weights at zero) − L(θ), for each set by itself.

    In evaluation mode and in float64, because one weight's effect is often below float32's resolution of the loss. The
    model stays as it is.

    Args:
        model: The network.
        index: Its prunable parameters.
        loss: A mean over samples.
        samples: Batches to measure on.
        sets: Positions in the index.
        notify: Called after each.

    Returns:
        (len(sets),) ΔL.
    """
    twin = copy.deepcopy(model).double().eval()
    samples = [(x.double(), y) for x, y in samples]
    parameters = dict(twin.named_parameters(remove_duplicate=False))
    before = mean_loss(twin, loss, samples)
    changes = np.empty(len(sets))
    for number, positions in enumerate(sets):
        saved = []
        for entry in index:
            inside = positions[(positions >= entry.offset) & (positions < entry.stop)] - entry.offset
            if len(inside):
                flat = parameters[entry.name].data.view(-1)
                chosen = torch.from_numpy(inside).to(flat.device)
                saved.append((flat, chosen, flat[chosen].clone()))
                flat[chosen] = 0
        changes[number] = mean_loss(twin, loss, samples) - before
        for flat, chosen, values in saved:
            flat[chosen] = values
        notify()
    return changes


def compare(actual: npt.NDArray[np.float64], predictors: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    """Rank and linear correlation of each predictor with what happened.

    Args:
        actual: (n,) loss changes.
        predictors: (n,) predicted ones by name.

    Returns:
        ``count``, ``mean_actual``, and ``predictors``: by name ``mean``, ``spearman`` with its two-sided ``p_value``,
        and ``pearson``; None where fewer than :data:`FEWEST` differ or either side is constant.
    """
    from scipy.stats import pearsonr

    found: dict[str, Any] = {}
    for name, values in predictors.items():
        line: dict[str, Any] = {"mean": None, "spearman": None, "p_value": None, "pearson": None}
        if len(actual):
            line["mean"] = float(values.mean())
        if len(actual) >= FEWEST and np.ptp(actual) > 0 and np.ptp(values) > 0:
            line["spearman"], line["p_value"] = spearman(values, actual)
            line["pearson"] = float(pearsonr(values / np.abs(values).max(), actual / np.abs(actual).max()).statistic)
        found[name] = line
    mean = float(actual.mean()) if len(actual) else None
    return {"count": len(actual), "mean_actual": mean, "predictors": found}
