"""Masks that come with foreign weights: those of ``torch.nn.utils.prune``, of our own files, and of sparse rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from causalprune.base.errors import DataError, MismatchError
from causalprune.models.checkpoint import PREFIXES
from causalprune.models.export.formats import CSR_PARTS


@dataclass(frozen=True)
class NamedWeights:
    """The entries of a state dict, without its masks.

    Attributes:
        weights: By name.
        masks: Zeros and ones by the name of the weight.
    """

    weights: dict[str, Any]
    masks: dict[str, torch.Tensor]


def separate_masks(entries: Mapping[str, Any], own: Mapping[str, torch.Tensor], source: str) -> NamedWeights:
    """Tell masks from weights, where the network itself has no entries of such names.

    Known are ``NAME_orig`` with ``NAME_mask``, as of ``torch.nn.utils.prune`` and our exports with masks; ``NAME`` with
    ``NAME_mask``; ``mask/NAME``, as in our checkpoints; and ``NAME.crow_indices`` with its like, as ``export`` writes
    for ``csr``, where what isn't stored is masked.

    Args:
        entries: A state dict, by the names of the network.
        own: The network's state dict.
        source: The file, for messages.

    Raises:
        DataError: The sparse rows are no matrix.
        MismatchError: The sparse rows have another shape.
    """
    weights, masks = dict(entries), dict[str, torch.Tensor]()
    for name in entries:
        if name in own:
            continue
        if name.startswith(PREFIXES):
            value = weights.pop(name)
            if name.startswith("mask/"):
                masks[name.removeprefix("mask/")] = value
            continue
        stem = name.removesuffix("_orig")
        if stem != name and stem in own and stem not in entries and f"{stem}_mask" in entries:
            weights[stem] = weights.pop(name)
        stem = name.removesuffix("_mask")
        if stem != name and stem in own and (stem in entries or f"{stem}_orig" in entries):
            masks[stem] = weights.pop(name)
        stem = name.removesuffix(".crow_indices")
        if stem != name and stem in own and all(f"{stem}.{part}" in entries for part in CSR_PARTS):
            parts = [weights.pop(f"{stem}.{part}") for part in CSR_PARTS]
            weights[stem], masks[stem] = _dense(parts, own[stem].shape, f"{stem} in {source}")
    return NamedWeights(weights, masks)


def apply_masks(named: NamedWeights, source: str) -> None:
    """Set the masked weights to zero, in new tensors, and make the masks bools.

    Raises:
        DataError: A mask holds more than zeros and ones, or has another shape than its weight.
    """
    for name, mask in named.masks.items():
        weight, subject = named.weights[name], f"mask of {name} in {source}"
        named.masks[name] = keep = _bools(mask, subject)
        if keep.shape != weight.shape:
            raise DataError(subject, expected=f"shape {tuple(weight.shape)}", found=f"{tuple(keep.shape)}")
        named.weights[name] = torch.where(keep, weight.detach(), torch.zeros((), dtype=weight.dtype))


def _bools(mask: Any, subject: str) -> torch.Tensor:
    if not isinstance(mask, torch.Tensor) or mask.is_quantized or mask.layout is not torch.strided or mask.is_meta:
        found = str(getattr(mask, "dtype", type(mask).__name__))
        raise DataError(subject, expected="a dense tensor of zeros and ones", found=found)
    keep = mask.detach() != 0
    if not torch.equal(keep.to(mask.dtype), mask.detach()):
        found = f"{mask.dtype} from {mask.min():.3g} to {mask.max():.3g}"
        raise DataError(subject, expected="zeros and ones", found=found)
    return keep


def _dense(parts: list[torch.Tensor], expected: torch.Size, subject: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and its mask from sparse rows; nothing of another size than the network's is allocated."""
    rows, columns, values, shape = parts
    if shape.tolist() != list(expected):
        raise MismatchError(subject, expected=f"shape {tuple(expected)}", found=f"{tuple(shape.tolist())}"[:80])
    height, width = expected[0], expected[1:].numel()
    counts, columns = rows.long().diff(), columns.long()
    whole = len(counts) == height and rows[0] == 0 and rows[-1] == len(values) == len(columns)
    if not whole or (counts < 0).any() or (columns < 0).any() or (columns >= width).any():
        raise DataError(subject, expected="sparse rows as export `format=csr` writes them", found="others")
    stored = torch.repeat_interleave(torch.arange(height), counts), columns
    weight, keep = values.new_zeros(height, width), torch.zeros(height, width, dtype=torch.bool)
    weight[stored], keep[stored] = values, True
    return weight.reshape(expected), keep.reshape(expected)
