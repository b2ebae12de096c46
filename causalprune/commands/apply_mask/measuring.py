"""What ``apply-mask`` measures of a network on its data: its layers for a criterion, and how well it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.analysis.flatness.samples import draw_samples
from causalprune.base.compute.runtime import resolve_device
from causalprune.base.errors import CorruptError, DataError, MismatchError, StorageError, UsageError
from causalprune.base.progress import logger
from causalprune.commands._network import load_its_data
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.shared import ComputeOptions
from causalprune.data.normalization import spread
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.pruning.criterion import MeasuredLayers
from causalprune.pruning.layer_statistics import layer_statistics
from causalprune.training.metrics import evaluate_model

MAX_SAMPLES = 2048
"""Of a larger validation split so many samples are taken, spread evenly over it."""

_NOT_AT_HAND = (UsageError, DataError, CorruptError, StorageError, MismatchError)


def measured_layers(
    model: nn.Module, mask: Mask, checkpoint: Checkpoint, source: Path, config: ApplyMaskConfig
) -> MeasuredLayers:
    """Measure the layers of a network, which is on the CPU and stays there, on ``samples`` training samples.

    Raises:
        CausalpruneError: The data set can't be read, or is another one.
    """
    device = resolve_device(config.device)
    data = load_its_data(checkpoint, source, data_root=config.data_root, trust_code=config.trust_code)
    samples = draw_samples(
        data,
        "train",
        count=config.samples,
        batch_size=min(config.samples, 500),
        device=device,
        seed=config.seed,
        num_workers=config.num_workers,
    )
    batches = [inputs for inputs, _ in samples]
    statistics = layer_statistics(model.to(device), mask.index, batches, data.task, seed=config.seed)
    model.to(torch.device("cpu"))
    return MeasuredLayers(mask.index, mask.numpy().copy(), {name: layer.cpu() for name, layer in statistics.items()})


def validation_measure(
    checkpoint: Checkpoint, source: Path, config: ComputeOptions
) -> Callable[[nn.Module], dict[str, Any] | None] | None:
    """A function that measures a network, which is on the CPU and stays there, on at most :data:`MAX_SAMPLES` samples.

    Args:
        checkpoint: What the network comes from, with the data that it was trained on.
        source: Its path, for messages.
        config: ``data_root``, ``trust_code``, ``device``, ``num_workers``.

    Returns:
        The function, which returns what :func:`evaluate_model` does or None where that fails; None if the data aren't
        at hand.
    """
    try:
        device = resolve_device(config.device)
        data = load_its_data(checkpoint, source, data_root=config.data_root, trust_code=config.trust_code)
    except _NOT_AT_HAND as error:
        logger.debug("not measured: %s", error)
        return None
    samples = data.validation.subset(spread(len(data.validation), MAX_SAMPLES))
    data = replace(data, validation=samples)

    def measure(model: nn.Module) -> dict[str, Any] | None:
        try:
            return evaluate_model(
                model.to(device), data, "validation", batch_size=512, device=device, num_workers=config.num_workers
            )
        except Exception as error:  # the user's network may fail in any way on these samples
            logger.debug("not measured: %s", error)
            return None
        finally:
            model.to(torch.device("cpu"))

    return measure
