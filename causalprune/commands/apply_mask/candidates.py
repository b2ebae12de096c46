"""Which weights ``apply-mask`` may prune, and what a fit says about them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs
from causalprune.base.errors import CorruptError, DataError, MismatchError, StorageError, UsageError
from causalprune.commands._network import load_its_data, samples_of
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.pruning.network.choice import untrained_tensors
from causalprune.trajectory import RecordingReader

_TRIED = 32
"""Samples on which it is tried out whether channels can be removed, and which weights reach an output."""


def frozen_tensors(model: nn.Module, mask: Mask, reader: RecordingReader | None, checkpoint: Checkpoint) -> list[str]:
    """Names of the prunable tensors that weren't trained, see :func:`untrained_tensors`.

    A recording says which no step trained, and so does the checkpoint that it ended with.
    """
    said = reader.untrained if reader is not None else checkpoint.info.metrics.get("untrained", ())
    return untrained_tensors(model, mask.index, said)


def samples_to_try(checkpoint: Checkpoint, source: Path, config: ApplyMaskConfig) -> Inputs | None:
    """Some training samples, on which the structure of the network is tried out; None without the data."""
    try:
        data = load_its_data(checkpoint, source, data_root=config.data_root, trust_code=config.trust_code)
        return samples_of(data, "train", torch.device("cpu"), count=_TRIED)
    except (CorruptError, DataError, MismatchError, StorageError, UsageError):
        return None
