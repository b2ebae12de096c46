"""A quick measurement of a network on its validation split, for a command that doesn't need the data itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import CorruptError, DataError, MismatchError, StorageError, UsageError
from causalprune.base.progress import logger
from causalprune.base.runtime import resolve_device
from causalprune.commands._network import load_its_data
from causalprune.config.shared import ComputeOptions
from causalprune.data.normalization import spread
from causalprune.models.checkpoint import Checkpoint
from causalprune.training.metrics import evaluate_model

MAX_SAMPLES = 2048
"""Of a larger validation split so many samples are taken, spread evenly over it."""

_NOT_AT_HAND = (UsageError, DataError, CorruptError, StorageError, MismatchError)


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
        except (*_NOT_AT_HAND, RuntimeError) as error:
            logger.debug("not measured: %s", error)
            return None
        finally:
            model.to(torch.device("cpu"))

    return measure
