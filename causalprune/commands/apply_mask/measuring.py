"""What ``apply-mask`` measures of a network on its data: its layers for a criterion, and how well it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.base.compute.runtime import resolve_device
from causalprune.base.errors import CorruptError, DataError, MismatchError, StorageError, UsageError
from causalprune.base.paths import RunPaths, result_path
from causalprune.base.progress import logger
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._network import load_its_data, load_network
from causalprune.commands._output import read_result
from causalprune.commands.layer_statistics.measuring import measure_layers
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.shared import LAYER_SAMPLES, ComputeOptions
from causalprune.data.normalization import spread
from causalprune.models.checkpoint import Checkpoint, load_checkpoint
from causalprune.models.mask import Mask
from causalprune.pruning.layer_statistics import LayerStatistics
from causalprune.training.metrics import evaluate_model

MAX_SAMPLES = 2048
"""Of a larger validation split so many samples are taken, spread evenly over it."""

Measure = Callable[[nn.Module], dict[str, Any] | None]
"""Measures a network as :func:`evaluate_model` does; None where that fails."""

_NOT_AT_HAND = (UsageError, DataError, CorruptError, StorageError, MismatchError)


def measured_layers(
    model: nn.Module, mask: Mask, checkpoint: Checkpoint, source: Path, config: ApplyMaskConfig
) -> tuple[dict[str, LayerStatistics], int]:
    """Measure the layers of a network, which is on the CPU and stays there, on training samples.

    Returns:
        By the name of the weight; the number of samples.

    Raises:
        CausalpruneError: The data set can't be read, or is another one.
    """
    device = resolve_device(config.device)
    data = load_its_data(checkpoint, source, data_root=config.data_root, trust_code=config.trust_code)
    samples, workers = config.samples or LAYER_SAMPLES, config.num_workers
    found = measure_layers(
        model.to(device), mask.index, data, device, samples=samples, seed=config.seed, num_workers=workers
    )
    model.to(torch.device("cpu"))
    return found, min(samples, len(data.train))


@dataclass(frozen=True)
class BeforeAndAfter:
    """How well a network does on validation samples before and after a mask.

    Attributes:
        before: Measures the network to be pruned; returns None where nothing is measured.
        after: Measures it once it is pruned. Not with new statistics of batch normalization, which say nothing yet.
    """

    before: Measure
    after: Measure

    @classmethod
    def of(cls, checkpoint: Checkpoint, source: Path, config: ApplyMaskConfig) -> BeforeAndAfter:
        """What measures the network of a checkpoint, if ``measure`` asks for it and the data are at hand."""
        measure = validation_measure(checkpoint, source, config) if config.measure else None
        return cls(measure or _not_measured, _not_measured if measure is None or config.reset_batchnorm else measure)


def measured_then(output: CheckpointOutput, checkpoint: Checkpoint, source: Path) -> dict[str, Any]:
    """``validation`` and ``validation_before`` of a mask that is made already.

    They are in its result file. They are measured again if a crash came between the checkpoint and that file.
    """
    config, names = output.config, ("validation", "validation_before")
    path = result_path(RunPaths(config.run), output.stage, output.path, output.default)
    written = read_result(path).get("metrics")
    if written is not None or not config.measure:
        return {name: (written or {}).get(name) for name in names}
    found = BeforeAndAfter.of(checkpoint, source, config)
    pairs = ((found.after, load_checkpoint(output.path)), (found.before, checkpoint))
    cpu = torch.device("cpu")
    values = [
        measure(load_network(network, source, cpu, trust_code=config.trust_code)[0]) for measure, network in pairs
    ]
    return dict(zip(names, values, strict=True))


def _not_measured(model: nn.Module) -> None:
    del model


def validation_measure(checkpoint: Checkpoint, source: Path, config: ComputeOptions) -> Measure | None:
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
