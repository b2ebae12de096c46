"""The network of a checkpoint with its mask, on a device, and the data on which it was trained."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from causalprune.analysis.flatness.samples import draw_samples
from causalprune.base.compute.inputs import Inputs, joined
from causalprune.base.compute.runtime import make_deterministic, resolve_device
from causalprune.base.errors import MismatchError
from causalprune.commands.provenance.lineage import has_stale_statistics
from causalprune.config.shared import ComputeOptions
from causalprune.data.datasets import DataSet, load_data
from causalprune.data.names import dataset_form
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.prunable import not_prunable
from causalprune.models.registry import rebuild_model
from causalprune.training.batch_statistics import averaging_batchnorm, reestimate_batchnorm

SAMPLES = 256
"""Samples of a split on which it is decided whether a channel is constant, and others on which that is verified."""

_SMALLEST_BATCH = 32
"""Statistics of fewer samples say little about those of a whole data set in the layers behind the first."""


def set_up(
    checkpoint: Checkpoint, source: Path, config: ComputeOptions
) -> tuple[torch.device, DataSet, nn.Module, Mask]:
    """Load the network and the data of a checkpoint.

    Args:
        checkpoint: The network.
        source: Its path, for messages.
        config: ``device``, ``deterministic``, ``data_root``, ``trust_code``.

    Returns:
        The device, the data on which the network was trained, the network on the device, its mask.

    Raises:
        UsageError: A device that doesn't exist.
        MismatchError: Other data than the network was trained on, or tensors that don't fit the model.
    """
    device = resolve_device(config.device)
    if config.deterministic:
        make_deterministic()
    data = load_its_data(checkpoint, source, data_root=config.data_root, trust_code=config.trust_code)
    return device, data, *load_network(checkpoint, source, device, trust_code=config.trust_code)


def load_its_data(checkpoint: Checkpoint, source: Path, *, data_root: str, trust_code: bool) -> DataSet:
    """Load the data on which the network of a checkpoint was trained.

    Raises:
        MismatchError: Other data.
    """
    info = checkpoint.info
    # What the targets are was decided when the network was made. Only the user can permit a download.
    spec = replace(info.data, root=data_root or info.data.root, download=False, task=info.model.meaning)
    data = load_data(spec, trust_code=trust_code)
    if data.fingerprint != info.data_fingerprint or data.input_shape != info.model.input_shape:
        raise MismatchError(
            f"data set {spec.name}",
            expected=f"the data that {source} was trained on",
            found="other contents",
            remedy="put back the files, or train anew"
            if dataset_form(spec.name)
            else "pass the `data_root` of pretrain",
        )
    return data


def samples_of(
    data: DataSet, split: str, device: torch.device, *, count: int = SAMPLES, num_workers: int = 0
) -> Inputs:
    """Some normalized inputs of a split: those on which it is decided whether a channel can be removed."""
    parts = draw_samples(data, split, count=count, batch_size=count, device=device, seed=0, num_workers=num_workers)
    return joined([inputs for inputs, _ in parts])


def training_inputs(
    data: DataSet, device: torch.device, *, count: int, batch_size: int, seed: int, num_workers: int
) -> list[Inputs]:
    """Normalized inputs of training samples in batches, drawn with ``seed``; their labels aren't used."""
    options = {"batch_size": batch_size, "seed": seed, "num_workers": num_workers}
    return [inputs for inputs, _ in draw_samples(data, "train", count=count, device=device, **options)]


def needs_statistics(model: nn.Module, info: CheckpointInfo) -> bool:
    """Whether the network of a checkpoint has batch normalization with running statistics of before its mask."""
    return has_stale_statistics(info) and bool(averaging_batchnorm(model))


def give_statistics(
    model: nn.Module,
    data: DataSet,
    device: torch.device,
    config: ComputeOptions,
    *,
    count: int,
    batch_size: int,
) -> int:
    """Re-estimate the running statistics of batch normalization, in place, from training samples.

    Args:
        model: On ``device``.
        data: Its data set; nothing is augmented.
        device: Where to compute.
        config: The seed of the draw, and the worker processes for image files that don't fit in memory.
        count: How many samples; all if there are fewer, none for 0.
        batch_size: Samples in one forward pass, at least :data:`_SMALLEST_BATCH` and all of about one size.

    Returns:
        The number of samples that were used.
    """
    count = min(count, len(data.train))
    if not count:
        return 0
    passes = math.ceil(count / max(batch_size, _SMALLEST_BATCH))
    size = math.ceil(count / passes)
    inputs = training_inputs(
        data, device, count=count, batch_size=size, seed=config.seed, num_workers=config.num_workers
    )
    reestimate_batchnorm(model, inputs)
    return count


def load_network(
    checkpoint: Checkpoint, source: Path, device: torch.device, *, trust_code: bool
) -> tuple[nn.Module, Mask]:
    """Build the checkpoint's model with its weights and mask.

    Raises:
        MismatchError: The tensors don't fit the model that the checkpoint names.
    """
    info = checkpoint.info
    model = rebuild_model(info.model, checkpoint.weights, f"{source}", trust_code=trust_code)
    if not info.index.goes_with(model):
        raise MismatchError(
            f"{source}",
            expected=f"the prunable parameters of {info.model.name}",
            found="others",
            remedy="use its own code",
        )
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        found = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise MismatchError(f"{source}", expected=f"weights of {info.model.name}", found=found[:150]) from error
    return model.to(device), checkpoint.mask or Mask.all(info.index)


def among(checkpoint: Checkpoint, index: ParameterIndex) -> Checkpoint:
    """The same checkpoint with a longer list of prunable parameters, where it has all of them; else unchanged."""
    listed, weights = {entry.name: entry for entry in index}, checkpoint.weights
    own = checkpoint.info.index
    longer = all(e.name in listed and replace(listed[e.name], offset=e.offset) == e for e in own)
    if not longer or not all(e.name in weights and tuple(weights[e.name].shape) == e.shape for e in index):
        return checkpoint
    mask = None if checkpoint.mask is None else checkpoint.mask.within(index)
    return replace(checkpoint, info=replace(checkpoint.info, index=index), mask=mask)


def described_rest(model: nn.Module, index: ParameterIndex) -> str:
    """What of a network isn't prunable, in words; empty if all of it is."""
    rest = not_prunable(model, index)
    return "" if rest is None else f"{rest}"
