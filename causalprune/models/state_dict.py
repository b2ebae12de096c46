"""A state dict without its network: what a recording says of the parameters is enough to prune it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.models.foreign_masks import NamedWeights, apply_masks, separate_masks
from causalprune.models.initial_weights import MOST_WRAPPERS, renamed
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.weights_file import read_state_dicts


@dataclass(frozen=True, eq=False)
class StateDict:
    """The tensors of a state dict, some of which are prunable weights.

    Attributes:
        tensors: By the names that ``load_state_dict`` takes, in the order of the file.
        mask: What the file itself says is pruned; everything is kept if it says nothing.
        tied: The other names of prunable weights that have several, by the name in the index.
    """

    tensors: dict[str, torch.Tensor]
    mask: Mask
    tied: dict[str, list[str]]

    def theta(self) -> torch.Tensor:
        """(P,) float32 the prunable weights, on the CPU."""
        return self.mask.index.flatten(self.tensors, out=torch.empty(self.mask.index.total))

    def pruned(self, mask: Mask, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state dict with new weights, where there are any, and the pruned ones at +0.0, under every name."""
        changed: dict[str, torch.Tensor] = {}
        for name, keep in mask.tensors().items():
            old = self.tensors[name]
            value = weights[name].to(old.dtype) if name in weights else old
            masked = torch.where(keep, value, torch.zeros((), dtype=old.dtype))
            changed |= dict.fromkeys([name, *self.tied.get(name, [])], masked)
        return self.tensors | changed


def read_state_dict(path: Path, index: ParameterIndex) -> StateDict:
    """Read the state dict of a network from a file, as :mod:`causalprune.models.initial_weights` does with a network.

    It may be within a larger checkpoint, and its names may begin with the prefixes of wrappers, which are removed.

    Args:
        path: A ``.safetensors`` file, or one of ``torch.save``, from which tensors are read, but never code.
        index: The prunable parameters of the network.

    Raises:
        DataError: No file, or weights that aren't finite floats.
        CorruptError: The file holds no state dict, or more than tensors.
        UsageError: The file has another suffix.
        MismatchError: A prunable weight is missing, or has another shape.
    """
    shapes = {entry.name: torch.empty(entry.shape, device="meta") for entry in index}
    best: tuple[int, NamedWeights] | None = None
    for entries in read_state_dicts(path, "weights"):
        for strips in range(MOST_WRAPPERS):
            rename = partial(renamed, key_map=(), strips=strips)
            named = {rename(name): value for name, value in entries.items()}
            if len(named) < len(entries):
                break
            found = separate_masks(named, shapes, f"{path}")
            missing = len(shapes.keys() - found.weights.keys())
            if best is None or missing < best[0]:
                best = missing, found
            if not missing:
                break
    assert best is not None
    return _state_dict(best[1], index, path)


def _state_dict(named: NamedWeights, index: ParameterIndex, path: Path) -> StateDict:
    missing = [entry.name for entry in index if entry.name not in named.weights]
    if missing:
        raise MismatchError(
            f"{path}",
            expected=f"a weight {missing[0]}, as in the recording",
            found=f"none ({len(missing)} of {len(index)} missing)",
            remedy="name the `store` of this network",
        )
    for name, value in named.weights.items():
        _require_tensor(name, value, path)
    for entry in index:
        weight = named.weights[entry.name]
        if tuple(weight.shape) != entry.shape:
            raise MismatchError(
                f"{entry.name} in {path}",
                expected=f"shape {entry.shape}, as in the recording",
                found=f"{tuple(weight.shape)}",
                remedy="name the `store` of this network",
            )
        if not weight.is_floating_point() or not weight.isfinite().all():
            raise DataError(f"{entry.name} in {path}", expected="finite floating-point weights", found="others")
    keep = Mask.all(index).tensors()
    prunable = NamedWeights(named.weights, {n: m for n, m in named.masks.items() if n in keep})
    before = dict(named.weights)
    apply_masks(prunable, f"{path}")
    keep |= prunable.masks
    tied = {entry.name: _other_names(entry.name, before, index) for entry in index}
    return StateDict(named.weights, Mask.from_tensors(index, keep), {n: others for n, others in tied.items() if others})


def _other_names(name: str, tensors: Mapping[str, torch.Tensor], index: ParameterIndex) -> list[str]:
    """The names under which the same weight is there again: the same memory or, as in safetensors, the same bits."""
    weight, prunable = tensors[name], {entry.name for entry in index}
    return [
        other
        for other, tensor in tensors.items()
        if other not in prunable
        and tensor.shape == weight.shape
        and tensor.dtype == weight.dtype
        and (tensor.data_ptr() == weight.data_ptr() or torch.equal(tensor, weight))
    ]


def _require_tensor(name: str, value: Any, path: Path) -> None:
    plain = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_quantized
    if not plain or value.is_meta:
        raise CorruptError(
            f"{name} in {path}",
            expected="a dense tensor, because the file that is written holds nothing else",
            found=type(value).__name__ if not isinstance(value, torch.Tensor) else f"{value.dtype}, {value.layout}",
            remedy="prune the network in Python with causalprune.prune",
        )
