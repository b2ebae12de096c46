"""Set weights of the recorded network to zero and compare the loss with what a fit predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from causalprune.checkpoint import Checkpoint
from causalprune.config import DiagnoseConfig
from causalprune.errors import MismatchError
from causalprune.evaluation.interventions import Positions, compare, zeroed_loss_changes
from causalprune.evaluation.samples import draw_samples, loss_module
from causalprune.parameters import ParameterIndex
from causalprune.pruning.criteria.gamma import GAMMA
from causalprune.reporting import Reporter
from causalprune.runtime import keyed_seed
from causalprune.stages.criterion_inputs import read_inputs
from causalprune.stages.loading import set_up
from causalprune.store import Fit, RecordingReader


def intervene(
    config: DiagnoseConfig,
    checkpoint: Checkpoint,
    path: Path,
    index: ParameterIndex,
    reader: RecordingReader,
    fit: Fit,
    reporter: Reporter,
) -> dict[str, Any]:
    """Zero single weights with γ ≠ 0, and random groups of kept weights; measure ΔL; correlate.

    Setting θ_k to zero is the step Δθ_k = −θ_k, so the fit predicts ΔL = Σ γ_k θ_k² over the weights of the group.
    Three more predictors stand beside it: ``effect`` Σ|γ_k|θ_k², ``curvature`` Σ(γ_k + 1/η)θ_k², which leaves out the
    part of γ that belongs to steps along the gradient, and ``magnitude`` Σθ_k², which knows nothing of γ.

    Args:
        config: How many, on which samples.
        checkpoint: The network that the recording ended with.
        path: Where it lies.
        index: The store's parameters.
        reader: The recording.
        fit: Its fit.
        reporter: Shows progress.

    Returns:
        ``single`` and ``groups`` as :func:`causalprune.evaluation.interventions.compare` gives them, and on what they
        were measured.

    Raises:
        MismatchError: The checkpoint is of another network, or has another mask than the recording.
    """
    if checkpoint.info.index.fingerprint != index.fingerprint:
        raise MismatchError(
            f"{path}",
            expected="the network of the recording",
            found="another",
            remedy="name the --checkpoint that the recording ended with",
        )
    device, data, model, mask = set_up(checkpoint, path, config)
    if not np.array_equal(mask.numpy(), reader.active):
        raise MismatchError(
            f"{path}",
            expected=f"the mask that recording {reader.name} was made with",
            found="another",
            remedy="name the --checkpoint that the recording ended with",
        )
    if reader.info.identity and checkpoint.info.identity != reader.info.identity:
        reporter.warn(f"{path} isn't the checkpoint that recording {reader.name} ended with")
    samples = draw_samples(
        data,
        config.split,
        count=config.samples,
        batch_size=config.batch_size,
        device=device,
        seed=keyed_seed(config.seed, "interventions"),
        num_workers=config.num_workers,
    )
    theta = index.flatten(checkpoint.weights).cpu().numpy()
    values = read_inputs(GAMMA, theta, index, reader, fit, max_bytes=0)
    assert values.gamma is not None
    # With lags: a single step, before which nothing moved.
    gamma = np.atleast_2d(values.gamma)[0].astype(np.float64)
    squared = theta.astype(np.float64) ** 2
    effects = {"fit": gamma * squared, "effect": np.abs(gamma) * squared}
    rates = np.unique(reader.steps.lr)
    if not reader.info.update_rule.against_curvature(rates.tolist(), lags=values.gamma.ndim > 1):
        effects["curvature"] = (gamma + 1 / rates[0]) * squared
    effects["magnitude"] = squared
    kinds = {"single": _single(config, gamma * reader.active), "groups": _groups(config, reader)}
    result: dict[str, Any] = {
        "split": config.split,
        "samples": sum(len(x) for x, _ in samples),
        "group_size": len(kinds["groups"][0]),
    }
    with reporter.task("interventions", sum(map(len, kinds.values()))) as bar:
        for kind, sets in kinds.items():
            actual = zeroed_loss_changes(model, index, loss_module(data), samples, sets, notify=lambda: bar.advance(1))
            predictors = {n: np.array([v[s].sum() for s in sets]) for n, v in effects.items()}
            result[kind] = compare(actual, predictors)
    return result


def _single(config: DiagnoseConfig, gamma: np.ndarray) -> list[Positions]:
    """One weight each, of those with γ ≠ 0: of the others the fit predicts no change, and there's nothing to rank."""
    candidates = np.flatnonzero(gamma)
    rng = np.random.default_rng(keyed_seed(config.seed, "single"))
    chosen = rng.permutation(candidates)[: config.interventions]
    return [np.array([position]) for position in np.sort(chosen)]


def _groups(config: DiagnoseConfig, reader: RecordingReader) -> list[Positions]:
    """Random groups of kept weights, all of one size, so that size alone predicts nothing."""
    columns = reader.column_index
    size = max(1, round(config.group_share * len(columns)))
    rng = np.random.default_rng(keyed_seed(config.seed, "groups"))
    return [np.sort(rng.choice(columns, size, replace=False)) for _ in range(config.interventions)]
