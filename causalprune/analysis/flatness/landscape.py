"""The loss around a network: a filter-normalized 2-D slice (Li et al., NeurIPS 2018), and the tolerance of noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from causalprune.analysis.flatness.samples import ParameterVector, Samples, mean_loss
from causalprune.analysis.plots.figures import INK, figure, save
from causalprune.base.compute.runtime import keyed_seed
from causalprune.data.tasks.task import Task

SIGMAS = tuple(float(f"{s:.2g}") for s in np.logspace(-5, -1, 9))
"""1e-5 to 1e-1, two per decade."""


def filter_normalized_direction(parameters: ParameterVector, *, seed: int) -> list[torch.Tensor]:
    """A random direction in which each filter is as long as the network's: d_f ← d_f · ‖θ_f‖/‖d_f‖.

    A filter is a slice of a weight along its first dimension (in a linear layer, the incoming weights of a neuron). The
    direction is zero at pruned weights, so that the slice contains networks with the same mask, and at biases and
    normalization parameters, as in the paper.
    """
    direction = []
    for parameter, noise in zip(parameters.tensors, parameters.noise(keyed_seed(seed, "landscape")), strict=True):
        if parameter.ndim < 2:
            direction.append(torch.zeros_like(noise))
            continue
        shape = (-1, *[1] * (parameter.ndim - 1))
        lengths, own = noise.flatten(1).norm(dim=1), parameter.detach().flatten(1).norm(dim=1)
        scale = torch.where(lengths > 0, own / lengths.clamp_min(1e-30), torch.zeros_like(own))
        direction.append(noise * scale.view(shape))
    return direction


def loss_landscape(
    model: nn.Module,
    task: Task,
    parameters: ParameterVector,
    samples: Samples,
    *,
    points: int,
    seed: int = 0,
    notify: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """L(θ + a·u + b·v) on a grid of a and b in [−1, 1], for two filter-normalized directions u and v; restores θ.

    Args:
        model: In evaluation mode.
        task: Defines the loss.
        parameters: Its parameters.
        samples: What the loss is averaged over.
        points: Number of values of a and of b; odd, so that the grid contains θ itself.
        seed: Seed of the directions.
        notify: Called after each of the points² losses.

    Returns:
        ``axis``, the values of a and of b; ``loss``, a row for each b, with None for a loss that isn't finite.
    """
    axis = np.linspace(-1.0, 1.0, points)
    rows: list[list[float | None]] = []
    with parameters.restored() as origin:
        u, v = (filter_normalized_direction(parameters, seed=keyed_seed(seed, name)) for name in ("u", "v"))
        for b in axis:
            values = []
            for a in axis:
                parameters.move(origin, (float(a), u), (float(b), v))
                value = mean_loss(model, task, samples)
                values.append(value if math.isfinite(value) else None)
                notify()
            rows.append(values)
    return {"axis": axis.tolist(), "loss": rows}


def plot_landscape(landscape: dict[str, Any], title: str, path: Path) -> None:
    """Draw the slice as filled contours of the logarithm of the loss, with the network in the middle.

    Raises:
        UsageError: matplotlib is missing, or ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    axis = np.array(landscape["axis"])
    loss = np.array(landscape["loss"], dtype=float)
    # A loss of exactly 0 has no logarithm.
    height = np.log10(np.maximum(loss, 1e-12))
    drawing = figure(6.2, 5.0)
    axes = drawing.subplots()
    levels = np.linspace(np.nanmin(height), np.nanmax(height) + 1e-9, 16)
    filled = axes.contourf(axis, axis, np.ma.masked_invalid(height), levels=levels, cmap="Blues_r")
    lines = axes.contour(axis, axis, np.ma.masked_invalid(height), levels=levels[::3], colors=INK, linewidths=0.5)
    axes.clabel(lines, fmt=lambda v: f"{10**v:.3g}", fontsize=8)
    axes.plot(0, 0, "o", color="#D55E00", markersize=6)
    axes.set_box_aspect(1)
    axes.set(xlabel="first direction (filter-normalized)", ylabel="second direction")
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_title(title, fontsize=10.5)
    bar = drawing.colorbar(filled, ax=axes)
    ticks = levels[::3]
    bar.set_ticks(ticks.tolist(), labels=[f"{10**t:.3g}" for t in ticks])
    bar.set_label("loss")
    save(drawing, path)


def noise_tolerance(
    model: nn.Module,
    task: Task,
    parameters: ParameterVector,
    samples: Samples,
    *,
    draws: int,
    seed: int = 0,
    notify: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """L(θ + σz)/L(θ) with z ~ N(0, 1) for each parameter that isn't pruned, over several draws of z.

    A draw uses the same z for all σ, so that its curve is smooth. The parameters are restored.

    Args:
        model: In evaluation mode.
        task: Defines the loss.
        parameters: Its parameters; pruned weights stay zero.
        samples: What the loss is averaged over.
        draws: Number of draws of z.
        seed: Seed of the draws.
        notify: Called after each loss: that without noise, and one for each draw and σ.

    Returns:
        ``loss``, that without noise; ``sigma``; ``mean`` and ``std`` of the relative loss at each σ, None if a loss
        isn't finite or the loss without noise is 0; ``draws``.
    """
    table = np.full((draws, len(SIGMAS)), np.nan)
    with parameters.restored() as origin:
        base = mean_loss(model, task, samples)
        notify()
        for draw in range(draws):
            direction = parameters.noise(keyed_seed(seed, "noise", draw))
            for place, sigma in enumerate(SIGMAS):
                parameters.move(origin, (sigma, direction))
                table[draw, place] = mean_loss(model, task, samples)
                notify()
    relative = table / base if base > 0 else np.full_like(table, np.nan)
    columns = [column if np.isfinite(column).all() else None for column in relative.T]
    return {
        "loss": base,
        "sigma": list(SIGMAS),
        "mean": [None if c is None else float(c.mean()) for c in columns],
        "std": [None if c is None or draws < 2 else float(c.std(ddof=1)) for c in columns],
        "draws": draws,
    }
