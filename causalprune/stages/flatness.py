"""What ``evaluate`` measures of the loss around a network: Hessian, noise tolerance, a slice of the landscape."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from causalprune.analysis.flatness.samples import ParameterVector, draw_samples
from causalprune.config import EvaluateConfig
from causalprune.data.datasets import DataSet
from causalprune.pruning.mask import Mask
from causalprune.training.losses import loss_function


def measure_flatness(
    config: EvaluateConfig, model: nn.Module, mask: Mask, data: DataSet, device: torch.device
) -> dict[str, Any]:
    """Measure what the configuration asks for, in evaluation mode, on a fixed part of a split.

    Args:
        config: ``hessian``, ``noise``, ``landscape`` and their options.
        model: On ``device``; its parameters are as before afterwards.
        mask: Its mask.
        data: What it was trained on.
        device: Where to compute.

    Returns:
        ``flatness_samples``, ``flatness_split``, and of ``hessian``, ``noise`` and ``landscape`` what was asked for;
        nothing if nothing was.

    Raises:
        UsageError: An extra that isn't installed.
        NumericalError: Eigenvalues that don't converge.
    """
    if not (config.hessian or config.noise or config.landscape):
        return {}
    model.eval()
    parameters, loss = ParameterVector(model, mask), loss_function(data.task)
    samples = draw_samples(
        data,
        config.flatness_split,
        count=config.samples,
        batch_size=config.batch_size,
        device=device,
        seed=config.seed,
        num_workers=config.num_workers,
    )
    found: dict[str, Any] = {
        "flatness_samples": sum(len(inputs) for inputs, _ in samples),
        "flatness_split": config.flatness_split,
    }
    if config.hessian:
        from causalprune.analysis.flatness.hessian import hessian_spectra

        spectra = hessian_spectra(model, loss, parameters, samples, count=config.hessian, seed=config.seed)
        found["hessian"] = {name: spectrum.to_json() for name, spectrum in spectra.items()}
    if config.noise:
        from causalprune.analysis.flatness.noise import noise_tolerance

        found["noise"] = noise_tolerance(model, loss, parameters, samples, draws=config.draws, seed=config.seed)
    if config.landscape:
        from causalprune.analysis.flatness.landscape import loss_landscape

        found["landscape"] = loss_landscape(
            model, loss, parameters, samples, points=config.landscape_points, seed=config.seed
        )
    return found
