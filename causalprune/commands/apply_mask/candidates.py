"""Which weights ``apply-mask`` may prune, and what a fit says about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import CorruptError, DataError, MismatchError, StorageError, UsageError
from causalprune.commands._network import load_its_data, samples_of
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.pruning.network.choice import untrained_tensors
from causalprune.trajectory import Fit, RecordingReader

_TRIED = 32
"""Samples on which it is tried out whether channels can be removed."""


def frozen_tensors(model: nn.Module, mask: Mask, reader: RecordingReader | None, checkpoint: Checkpoint) -> list[str]:
    """Names of the prunable tensors that weren't trained, see :func:`untrained_tensors`.

    A recording says which no step trained, and so does the checkpoint that it ended with.
    """
    said = reader.untrained if reader is not None else checkpoint.info.metrics.get("untrained", ())
    return untrained_tensors(model, mask.index, said)


def samples_to_try(checkpoint: Checkpoint, source: Path, config: ApplyMaskConfig) -> torch.Tensor | None:
    """Some training samples, (N, …), on which channels are removed to see whether they can be; None without the data.

    Only ``granularity=channel`` needs them.
    """
    if config.granularity != "channel":
        return None
    try:
        data = load_its_data(checkpoint, source, data_root=config.data_root, trust_code=config.trust_code)
        return samples_of(data, "train", torch.device("cpu"), count=_TRIED)
    except (CorruptError, DataError, MismatchError, StorageError, UsageError):
        return None


def kept_by_lasso(fit: Fit) -> dict[str, Any]:
    """How many columns a fit has kept, and the most that a Lasso can: one per row."""
    evidence, lags = fit.attributes["evidence"], len(fit.arrays["gamma"]) > 1
    separate = max(1, len(fit.attributes["layers"]))
    bound = evidence["num_rows"] * separate if evidence["l1_ratio"] == 1 else None
    return {
        "nonzero": evidence["num_nonzero"],
        "columns": evidence["num_columns"],
        "rows": evidence["num_rows"],
        "most": bound,
        "what": "groups" if fit.attributes["granularity"] != "parameter" else "columns" if lags else "weights",
    }
