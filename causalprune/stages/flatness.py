"""What ``evaluate`` measures of the loss around a network: Hessian, noise tolerance, a slice of the landscape."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from causalprune.data.datasets import DataSet
from causalprune.evaluation.samples import draw_samples, loss_module
from causalprune.evaluation.subspace import ParameterVector
from causalprune.pruning.mask import Mask


def measure_flatness(
    model: nn.Module,
    mask: Mask,
    data: DataSet,
    device: torch.device,
    *,
    hessian: int,
    noise: bool,
    landscape: bool,
    split: str,
    samples: int,
    batch_size: int,
    num_workers: int,
    draws: int,
    landscape_points: int,
    seed: int,
) -> dict[str, Any]:
    """Measure what is asked for, in evaluation mode, on a fixed part of a split.

    Args:
        model: On ``device``; its parameters are as before afterwards.
        mask: Its mask.
        data: What it was trained on.
        device: Where to compute.
        hessian: How many eigenvalues of the Hessian, 0 for none.
        noise: Whether to measure the tolerance of noise.
        landscape: Whether to measure a slice of the landscape.
        split: The split from which samples are drawn.
        samples: How many samples.
        batch_size: Samples in a minibatch.
        num_workers: Processes that load data.
        draws: Of the noise.
        landscape_points: Points along each direction.
        seed: Draws samples, noise and directions.

    Returns:
        ``flatness_samples``, ``flatness_split``, and of ``hessian``, ``noise`` and ``landscape`` what was asked for;
        nothing if nothing was.

    Raises:
        UsageError: An extra that isn't installed.
        NumericalError: Eigenvalues that don't converge.
    """
    if not (hessian or noise or landscape):
        return {}
    model.eval()
    parameters, loss = ParameterVector(model, mask), loss_module(data)
    batches = draw_samples(
        data,
        split,
        count=samples,
        batch_size=batch_size,
        device=device,
        seed=seed,
        num_workers=num_workers,
    )
    found: dict[str, Any] = {
        "flatness_samples": sum(len(inputs) for inputs, _ in batches),
        "flatness_split": split,
    }
    if hessian:
        from causalprune.evaluation.hessian import hessian_spectra

        spectra = hessian_spectra(model, loss, parameters, batches, count=hessian, seed=seed)
        found["hessian"] = {name: spectrum.to_json() for name, spectrum in spectra.items()}
    if noise:
        from causalprune.evaluation.noise import noise_tolerance

        found["noise"] = noise_tolerance(model, loss, parameters, batches, draws=draws, seed=seed)
    if landscape:
        from causalprune.evaluation.landscape import loss_landscape

        found["landscape"] = loss_landscape(model, loss, parameters, batches, points=landscape_points, seed=seed)
    return found
