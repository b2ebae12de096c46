"""Start from existing weights: find the state dict in a file, match its names, take over its masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import CorruptError, DataError, MismatchError, UsageError
from causalprune.models.extra_state import is_extra_state
from causalprune.models.foreign_masks import NamedWeights, apply_masks, separate_masks
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.weights_file import read_state_dicts

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes of DataParallel, of torch.compile, and of training frameworks."""

MANY_ZEROS = 0.01
"""From this share of zeros on, weights without a mask are taken for pruned ones, and a warning says so."""

MOST_WRAPPERS = 4
"""How many prefixes are stripped at most, plus 1."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_initial_weights(
    model: nn.Module,
    path: Path,
    *,
    key_map: Sequence[str] = (),
    ignore: Sequence[str] = (),
    allow_mismatch: bool = False,
    keep_zeros: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> Mask:
    """Load a state dict, as PyTorch's users save them, into a model.

    The state dict may be within a larger checkpoint (:data:`causalprune.models.weights_file.KEYS`), and its names may
    begin with :data:`WRAPPERS`. That reading is used which fits the network best; of several, the one that changes
    least. ``num_batches_tracked`` may be missing, and so may the second name of a tied weight. Masks
    (:func:`causalprune.models.foreign_masks.separate_masks`) are applied and returned.

    Args:
        model: Changed in place.
        path: A ``.safetensors`` file, or one of ``torch.save``, from which tensors are read, but never code.
        key_map: Rules ``OLD=NEW`` for the beginnings of names; the first matching rule is used.
        ignore: Patterns such as ``fc.*``. Entries of the file whose names match aren't read; entries of the network
            whose names match, or that those would have been, keep their initial values.
        allow_mismatch: Whether weights of another shape keep their initial values instead of being an error.
        keep_zeros: Whether prunable weights that are 0 count as pruned.
        warn: Told what isn't as one might expect: weights that keep their initial values, masks.

    Returns:
        The mask that the file implies; it keeps everything if the file has none.

    Raises:
        DataError: The file is missing; a weight is of integers or not finite; a mask isn't of zeros and ones.
        CorruptError: The file holds no weights.
        UsageError: The file has another suffix, or a pattern matches nothing.
        MismatchError: The weights belong to another model.
    """
    own = model.state_dict()
    found = _best_reading(own, read_state_dicts(path, alone=keep_zeros), path, key_map, ignore)
    found.require_fit(type(model).__name__)
    other_shapes = {
        name: tuple(value.shape)
        for name, value in found.weights.items()
        if isinstance(value, torch.Tensor) and value.shape != own[name].shape and not is_extra_state(name)
    }
    if other_shapes and not allow_mismatch:
        name, shape = next(iter(other_shapes.items()))
        raise MismatchError(
            f"{name} in {path}",
            expected=f"shape {tuple(own[name].shape)}",
            found=f"{shape}",
            remedy="choose another `model`, or pass `allow_mismatch` to start such weights anew",
        )
    weights = {name: value for name, value in found.weights.items() if name not in other_shapes}
    named = NamedWeights(weights, {name: mask for name, mask in found.masks.items() if name in weights})
    if not named.weights:
        raise MismatchError(f"{path}", expected="a weight that this network can use", found="none")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, value in named.weights.items():
        if not is_extra_state(name):
            _check_weight(value, own[name], f"{name} in {path}", finite=name in parameters)
    apply_masks(named, f"{path}")
    # The network's own tensors, where the file has none, are copied onto themselves.
    model.load_state_dict({**own, **named.weights})
    fresh = [f"{name} (in the file {shape})" for name, shape in other_shapes.items()] + found.left_out
    if fresh:
        warn(f"not set by {path}, so these keep their initial values: {_listed(fresh, 8)}")
    mask = _mask_of(own, ParameterIndex.from_model(model), named.masks, warn)
    zeros = torch.cat([own[entry.name].reshape(-1) == 0 for entry in mask.index]) & mask.keep
    if keep_zeros:
        mask = Mask(mask.index, mask.keep & ~zeros)
    elif zeros.sum() >= MANY_ZEROS * mask.index.total:
        share = float(zeros.sum()) / mask.index.total
        warn(f"{share:.2%} of the prunable weights in {path} are 0 and will be trained: `keep_zeros` holds them at 0")
    if mask.num_kept == 0:
        raise DataError(f"{path}", expected="a weight that isn't pruned", found="none")
    mask.apply_(model)
    if mask.num_pruned:
        warn(f"{mask.sparsity:.2%} of the prunable weights are pruned in {path} and stay so")
    return mask


class _Reading:
    """One way to read a file's entries as a network's state dict.

    Attributes:
        weights: Values by the network's names.
        masks: Masks by the names of their weights.
        missing: Names that only the network has.
        unexpected: Names that only the file has.
        left_out: Names that the network has, and that ``ignore`` concerns.
        twice: A name that several entries of the file would get.
        unused: Patterns of ``ignore`` that concern no name.
    """

    def __init__(
        self,
        entries: Mapping[str, Any],
        own: Mapping[str, torch.Tensor],
        source: str,
        rename: Callable[[str], str],
        ignore: Sequence[str],
    ) -> None:
        self._source, self.twice, self.unused = source, "", set(ignore)
        renamed, dropped = dict[str, Any](), set[str]()
        for old, value in entries.items():
            name = rename(old)
            if self._ignores(old, ignore) | self._ignores(name, ignore):
                dropped.add(name)
            elif name in renamed:
                self.twice = name
            renamed.setdefault(name, value)
        named = separate_masks({n: v for n, v in renamed.items() if n not in dropped}, own, source)
        self.weights, self.masks = named.weights, named.masks
        absent = own.keys() - self.weights.keys()
        left_out = {name for name in absent if self._ignores(name, ignore) or dropped & {name, f"{name}_orig"}}
        self.left_out = [name for name in own if name in left_out]
        there = {own[name].data_ptr() for name in own.keys() & self.weights.keys()}
        self.missing = {
            name
            for name in absent - left_out
            if name.rpartition(".")[2] != "num_batches_tracked" and own[name].data_ptr() not in there
        }
        self.unexpected = self.weights.keys() - own.keys()

    def _ignores(self, name: str, ignore: Sequence[str]) -> bool:
        matching = {pattern for pattern in ignore if fnmatchcase(name, pattern)}
        self.unused -= matching
        return bool(matching)

    @property
    def misfits(self) -> float:
        """How many names have no partner."""
        return math.inf if self.twice else len(self.missing) + len(self.unexpected)

    def require_fit(self, network: str) -> None:
        """Check that every name has a partner.

        Raises:
            UsageError: A pattern concerns no name.
            MismatchError: A name has no partner, or several have the same.
        """
        if self.twice:
            raise MismatchError(self._source, expected="distinct names", found=f"{self.twice} twice")
        for relation, odd in (("missing", self.missing), ("unexpected", self.unexpected)):
            if odd:
                raise MismatchError(
                    self._source,
                    expected=f"weights of this {network}",
                    found=f"{len(odd)} {relation}: {_listed(sorted(odd), 3)}",
                    remedy="rename them with `key_map=OLD=NEW`, leave them out with `ignore=PATTERN`, "
                    "or choose another `model`",
                )
        if self.unused:
            pattern = min(self.unused)
            raise UsageError("`ignore`", expected="a pattern that matches a name", found=repr(pattern))


def _best_reading(
    own: Mapping[str, torch.Tensor],
    state_dicts: Sequence[Mapping[str, Any]],
    path: Path,
    key_map: Sequence[str],
    ignore: Sequence[str],
) -> _Reading:
    """The reading with the fewest misfits; of several, the one that changes least."""
    best: _Reading | None = None
    for entries in state_dicts:
        for strips in range(MOST_WRAPPERS):
            rename = partial(renamed, key_map=key_map, strips=strips)
            if strips and all(rename(name) == renamed(name, key_map, strips - 1) for name in entries):
                break
            reading = _Reading(entries, own, f"{path}", rename, ignore)
            if best is None or reading.misfits < best.misfits:
                best = reading
            if best.misfits == 0:
                return best
    assert best is not None
    return best


def renamed(name: str, key_map: Sequence[str], strips: int) -> str:
    """A name with the first rule that fits, and without so many prefixes of wrappers."""
    for rule in key_map:
        old, _, new = rule.partition("=")
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for _ in range(strips):
        name = name.removeprefix(next((prefix for prefix in WRAPPERS if name.startswith(prefix)), ""))
    return name


def _check_weight(value: Any, own: torch.Tensor, subject: str, *, finite: bool) -> None:
    """Check that a value can be copied into a tensor of the network without losing what it means.

    Raises:
        CorruptError: It isn't a dense tensor of real numbers.
        DataError: It is of integers, where the network has floats, or the other way round; or it isn't finite.
    """
    quantized = isinstance(value, torch.Tensor) and value.is_quantized
    if not quantized:
        dense = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta
        if not dense or value.is_complex():
            found = f"{value.dtype}, {value.layout}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise CorruptError(subject, expected="a dense tensor of real numbers", found=found)
    if own.is_floating_point():
        if value.dtype not in _FLOATS:
            remedy = "convert the weights back to floats first, with their scales"
            raise DataError(subject, expected="floating-point weights", found=f"{value.dtype}", remedy=remedy)
        if finite and not value.to(own.dtype).isfinite().all():
            raise DataError(subject, expected="finite weights", found=f"NaN or infinity in {own.dtype}")
    elif quantized or not torch.equal(value.to(own.dtype).to(value.dtype), value):
        raise DataError(subject, expected=f"values of {own.dtype}", found=f"others, in {value.dtype}")


def _mask_of(
    own: Mapping[str, torch.Tensor],
    index: ParameterIndex,
    masks: Mapping[str, torch.Tensor],
    warn: Callable[[str], None],
) -> Mask:
    """The masks of prunable weights as one; a tied weight may be masked under any of its names."""
    entries = {own[entry.name].data_ptr(): entry.name for entry in index}
    keep = {entry.name: torch.ones(entry.shape, dtype=torch.bool) for entry in index}
    others = []
    for name, mask in masks.items():
        entry = entries.get(own[name].data_ptr())
        if entry is None:
            others.append(name)
        else:
            keep[entry] &= mask
    if others:
        listed = _listed(others, 3)
        warn(f"masks of {listed} are applied once and not held: they are of no prunable weight")
    return Mask.from_tensors(index, keep)


def _listed(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
