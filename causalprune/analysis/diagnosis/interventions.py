"""Set weights to zero, measure how the loss changes, and compare with what the fit predicts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalprune.analysis.flatness.samples import Samples, mean_loss
from causalprune.base.compute.inputs import mapped
from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.progress import Reporter
from causalprune.data.tasks.task import Task
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criteria import GAMMA, read_inputs
from causalprune.solver.evidence import spearman
from causalprune.trajectory import Fit, RecordingReader

FEWEST = 8
"""Fewest interventions for which a correlation is reported."""

Positions = npt.NDArray[np.int64]


@torch.no_grad()
def zeroed_loss_changes(
    model: nn.Module,
    index: ParameterIndex,
    task: Task,
    samples: Samples,
    sets: Sequence[Positions],
    notify: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float64]:
    """L(θ with a set of weights at zero) − L(θ), for each set separately.

    Measures a copy of the model in evaluation mode and in float64, because the effect of one weight is often below
    float32's resolution of the loss.

    Args:
        model: The network.
        index: Its prunable parameters.
        task: Defines the loss.
        samples: What the loss is averaged over.
        sets: Positions of weights in the index.
        notify: Called after each set.

    Returns:
        (len(sets),) float64 ΔL.
    """
    twin = copy.deepcopy(model).double().eval()
    samples = [(mapped(_widened, inputs), targets) for inputs, targets in samples]
    origin = copy.deepcopy(twin.state_dict())
    before = mean_loss(twin, task, samples)
    changes = np.empty(len(sets))
    for number, positions in enumerate(sets):
        keep = np.ones(index.total, dtype=bool)
        keep[positions] = False
        Mask.from_numpy(index, keep).apply_(twin)
        changes[number] = mean_loss(twin, task, samples) - before
        twin.load_state_dict(origin)
        notify()
    return changes


def _widened(part: torch.Tensor) -> torch.Tensor:
    return part.double() if part.is_floating_point() else part


def compare(actual: npt.NDArray[np.float64], predictors: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    """Rank and linear correlation of predicted with actual loss changes.

    Args:
        actual: (n,) loss changes.
        predictors: (n,) predicted loss changes by name.

    Returns:
        ``count``, ``mean_actual``, and ``predictors``: by name ``mean``, ``spearman`` with its two-sided ``p_value``,
        and ``pearson``; None if n is less than :data:`FEWEST` or either side is constant.
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


def intervene(
    model: nn.Module,
    task: Task,
    samples: Samples,
    reader: RecordingReader,
    fit: Fit,
    *,
    count: int,
    group_share: float,
    seed: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Zero single weights with γ ≠ 0 and random groups of kept weights; correlate predicted and measured ΔL.

    Setting θ_k to zero is the step Δθ_k = −θ_k, so the fit predicts ΔL = Σ γ_k θ_k² over the weights of the group.
    Other predictors for comparison: ``effect`` Σ|γ_k|θ_k²; ``curvature`` Σ(γ_k + 1/η)θ_k², without the part of γ that
    comes from stepping along the gradient, for recordings of plain SGD only; and ``magnitude`` Σθ_k², without γ.

    Args:
        model: The network that the recording ended with; it stays as it is.
        task: Defines the loss.
        samples: What the loss is averaged over.
        reader: The recording.
        fit: A fit to it.
        count: Number of interventions of each kind.
        group_share: Size of a group, as a share of the kept weights.
        seed: Seed of the choice of weights.
        reporter: Shows progress.

    Returns:
        ``single`` and ``groups``, each as :func:`compare` returns it, and ``group_size``.
    """
    index = reader.index
    parameters = dict(model.named_parameters(remove_duplicate=False))
    theta = index.flatten(parameters).detach().cpu().numpy()
    values = read_inputs(GAMMA, theta, Mask.from_numpy(index, reader.active), reader, fit, max_bytes=0)
    assert values.gamma is not None
    # With lags, the first row: a single step that follows no others.
    gamma = np.atleast_2d(values.gamma)[0].astype(np.float64)
    squared = theta.astype(np.float64) ** 2
    effects = {"fit": gamma * squared, "effect": np.abs(gamma) * squared}
    if values.learning_rate is not None and values.gamma.ndim == 1:
        effects["curvature"] = (gamma + 1 / values.learning_rate) * squared
    effects["magnitude"] = squared
    kinds = {"single": _single(gamma * reader.active, count, seed), "groups": _groups(reader, group_share, count, seed)}
    result: dict[str, Any] = {"group_size": len(kinds["groups"][0])}
    with reporter.task("interventions", sum(map(len, kinds.values()))) as bar:
        for kind, sets in kinds.items():
            actual = zeroed_loss_changes(model, index, task, samples, sets, notify=lambda: bar.advance(1))
            predictors = {n: np.array([v[s].sum() for s in sets]) for n, v in effects.items()}
            result[kind] = compare(actual, predictors)
    return result


def _single(gamma: np.ndarray, count: int, seed: int) -> list[Positions]:
    """Single weights with γ ≠ 0; for the others the fit predicts no change, which leaves nothing to rank."""
    rng = np.random.default_rng(keyed_seed(seed, "single"))
    chosen = rng.permutation(np.flatnonzero(gamma))[:count]
    return [np.array([position]) for position in np.sort(chosen)]


def _groups(reader: RecordingReader, share: float, count: int, seed: int) -> list[Positions]:
    """Random groups of kept weights, all of the same size, so that size predicts nothing."""
    columns = reader.column_index
    size = max(1, round(share * len(columns)))
    rng = np.random.default_rng(keyed_seed(seed, "groups"))
    return [np.sort(rng.choice(columns, size, replace=False)) for _ in range(count)]
