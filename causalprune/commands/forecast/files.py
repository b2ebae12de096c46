"""The bytes of the files that the stages of a pipeline write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from causalprune.base.options import Options
from causalprune.base.units import Interval
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo, encode_checkpoint
from causalprune.models.mask import Mask
from causalprune.models.mask_file import encode_mask

_DIGEST = "0" * 64
_ANCESTOR_BYTES = 70
"""A hash in the list of ancestors, in a string within a header."""

STORE_METADATA = 10_000
"""Bytes of a store's metadata and its commit log, with one fit."""

_EPOCH = {"epoch": 10, "train_loss": 0.1234567890123456, "validation": 0.1234567890123456}


@dataclass
class CheckpointFiles:
    """The checkpoints of a pipeline, one after the other: tensors to the byte, descriptions nearly so.

    Attributes:
        info: The description of the first one.
        weights: The network's state dict.
        ancestors: How many weights the next one comes from.
    """

    info: CheckpointInfo
    weights: dict[str, torch.Tensor]
    ancestors: int = 0

    def next_bytes(self, stage: str, config: Options, mask: Mask, metrics: dict[str, Any]) -> int:
        """Bytes of the checkpoint that a stage writes, with its mask; it becomes an ancestor of those after it.

        Args:
            stage: Name of the command.
            config: Its options.
            mask: Its mask; one that prunes nothing isn't stored, but for that of apply-mask.
            metrics: Like those that it stores.
        """
        info = replace(
            self.info,
            stage=stage,
            index=mask.index,
            config=config.identity_fields(),
            identity=_DIGEST,
            inputs={"checkpoint": _DIGEST},
            metrics=metrics,
        )
        stored = mask if mask.num_pruned or stage == "apply-mask" else None
        size = len(encode_checkpoint(Checkpoint(info, self.weights, stored))) + self.ancestors * _ANCESTOR_BYTES
        self.ancestors += 1
        return size + (0 if stored is None else len(encode_mask(stored, {"network": _DIGEST})))

    def state_bytes(self, mask: Mask, *, more: dict[str, torch.Tensor], best: bool = False) -> int:
        """Bytes of a state that is saved for a resume, without its description.

        Args:
            mask: The mask.
            more: Tensors besides the weights.
            best: Whether it has the weights of the best epoch as well.
        """
        tensors = [*self.weights.values(), *more.values(), *(self.weights.values() if best else ())]
        size: int = sum(t.numel() * t.element_size() for t in tensors)
        return size + mask.index.total if mask.num_pruned else size


def training_metrics(epochs: int, validation: dict[str, Any]) -> dict[str, Any]:
    """As long as those of a training of so many epochs."""
    return {"best_epoch": epochs, "validation": validation, "history": [_EPOCH] * epochs}


def layer_metrics(mask: Mask, **numbers: int) -> dict[str, Any]:
    """As long as those of a repair."""
    layers = [{"name": entry.name, **dict.fromkeys(("before", "after"), _EPOCH["train_loss"])} for entry in mask.index]
    return {**numbers, "layers": layers}


def saved_states(checkpoint_every: str) -> int:
    """States of a stage on the disk at once, at most: the newest, the one before, and the one that is being written."""
    # Even then a signal makes it save.
    return 1 if Interval.parse(checkpoint_every) == Interval() else 3
