"""The order of the prunable parameters, and the conversion between named tensors and flat vectors of length P."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from causalprune.base.errors import CorruptError, DataError, UsageError
from causalprune.base.progress import logger
from causalprune.base.units import listed

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_PARAMETERS = 2**40
"""A file that declares a larger P is damaged."""


@dataclass(frozen=True)
class ParameterEntry:
    """One prunable tensor: the weight of a Linear or Conv layer.

    Attributes:
        name: Key in the model's state dict, such as ``"conv1.weight"``.
        shape: Its shape; axis ``filter_axis`` counts filters (Conv) or neurons (Linear).
        offset: Position of its first element in the flat vector.
        filter_axis: 1 for transposed convolutions, whose weight is (in, out, …), otherwise 0.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    filter_axis: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_units(self) -> int:
        """Number of filters or neurons."""
        return self.shape[self.filter_axis]

    @property
    def stop(self) -> int:
        """Position after its last element in the flat vector."""
        return self.offset + self.size

    @property
    def layer(self) -> str:
        """Name of the layer whose weight it is, such as ``"conv1"``."""
        # The original of a parametrized weight is two modules below its layer.
        owner, _, _ = self.name.rpartition(".")
        return f".{owner}".removesuffix(".parametrizations.weight").removeprefix(".")


@dataclass(frozen=True)
class ParameterIndex:
    """The prunable parameters of a model in one fixed order, that of ``model.named_modules()``.

    A tied weight is listed once, under its first name.
    """

    entries: tuple[ParameterEntry, ...]

    @classmethod
    def from_model(cls, model: nn.Module) -> ParameterIndex:
        """List the weights of all Linear and Conv layers; biases and normalization parameters are not prunable.

        Names are those without the wrappers of ``torch.compile`` and DataParallel; of a weight that is computed from
        another tensor, as under ``torch.nn.utils.prune``, that of the tensor (:func:`prunable_weights`).

        Raises:
            DataError: The model has no such layer.
        """
        from torch.nn.modules.conv import _ConvTransposeNd

        from causalprune.models.wrappers import prunable_weights

        entries: list[ParameterEntry] = []
        seen: set[int] = set()
        offset = 0
        weights, computed = prunable_weights(model)
        for name, weight, layer in weights:
            if id(weight) in seen:
                continue
            seen.add(id(weight))
            axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
            entries.append(ParameterEntry(name, tuple(weight.shape), offset, axis))
            offset = entries[-1].stop
        if not entries:
            raise DataError(
                f"model {type(model).__name__}",
                expected="at least one Linear or Conv layer to prune",
                found="weights computed from other tensors, which can't be pruned" if computed else "none",
                remedy="use another model",
            )
        if computed:
            count = f"layer {computed[0]}" if len(computed) == 1 else f"{len(computed)} layers such as {computed[0]}"
            logger.warning("%s can't be pruned: the weight is computed from other tensors", count)
        return cls(tuple(entries))

    @cached_property
    def total(self) -> int:
        """P, the number of prunable parameters."""
        return self.entries[-1].stop if self.entries else 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, shapes and order; with equal fingerprints, flat vectors are interchangeable."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def __iter__(self) -> Iterator[ParameterEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, name: str) -> ParameterEntry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def to_json(self) -> list[dict[str, Any]]:
        """A JSON-ready list; :meth:`from_json` reads it back."""
        return [{"name": e.name, "shape": list(e.shape), "filter_axis": e.filter_axis} for e in self.entries]

    @classmethod
    def from_json(cls, items: Any, source: str = "parameter index") -> ParameterIndex:
        """Read what :meth:`to_json` wrote.

        Args:
            items: The decoded JSON value, not trusted.
            source: The file it comes from, for the error message.

        Raises:
            CorruptError: The value isn't a list of parameters, or declares impossible sizes.
        """
        entries: list[ParameterEntry] = []
        offset = 0
        try:
            for item in items:
                shape = tuple(item["shape"])
                axis = item["filter_axis"]
                if not isinstance(item["name"], str) or not all(type(n) is int and n > 0 for n in shape):
                    raise ValueError(f"entry {item!r}"[:120])
                if type(axis) is not int or not 0 <= axis < len(shape):
                    raise ValueError(f"filter axis {axis!r}"[:120])
                entries.append(ParameterEntry(item["name"], shape, offset, axis))
                offset = entries[-1].stop
                if offset > MAX_PARAMETERS:
                    raise ValueError(f"{offset} parameters")
        except (TypeError, KeyError, ValueError) as error:
            raise CorruptError(
                source, expected="a list of parameter names and shapes", found=str(error) or repr(error)[:80]
            ) from error
        if len({e.name for e in entries}) != len(entries):
            raise CorruptError(source, expected="distinct parameter names", found="a name twice")
        return cls(tuple(entries))

    def only(self, names: Collection[str]) -> ParameterIndex:
        """The index of some of the parameters, in the same order."""
        chosen: list[ParameterEntry] = []
        for entry in self.entries:
            if entry.name in names:
                chosen.append(replace(entry, offset=chosen[-1].stop if chosen else 0))
        return ParameterIndex(tuple(chosen))

    def matching(self, pattern: str, subject: str) -> list[str]:
        """The names of the tensors whose own name or whose layer's name a pattern matches.

        Args:
            pattern: As in :mod:`fnmatch`, such as ``fc*``; upper and lower case differ.
            subject: The parameter that it comes from, for messages.

        Raises:
            UsageError: It matches nothing.
        """
        found = [entry.name for entry in self if fnmatchcase(entry.name, pattern) or fnmatchcase(entry.layer, pattern)]
        if not found:
            layers = [entry.layer or entry.name for entry in self]
            near = get_close_matches(pattern, layers, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            expected = f"a pattern that matches one of {listed(layers, 12)}{hint}"
            raise UsageError(subject, expected=expected, found=repr(pattern))
        return found

    def locate(self, position: int) -> tuple[str, tuple[int, ...]]:
        """Name and element index of a flat position, such as ``("fc1.weight", (3, 17))``."""
        for entry in self.entries:
            if entry.offset <= position < entry.stop:
                index = np.unravel_index(position - entry.offset, entry.shape)
                return entry.name, tuple(int(i) for i in index)
        raise IndexError(position)

    def flatten(self, tensors: Mapping[str, torch.Tensor], out: torch.Tensor | None = None) -> torch.Tensor:
        """Copy the named tensors into one vector of length P.

        Args:
            tensors: Tensors with the names and shapes of this index; others are ignored.
            out: (P,) destination; by default a new tensor with the dtype and device of the first one.
        """
        import torch

        first = tensors[self.entries[0].name]
        flat = torch.empty(self.total, dtype=first.dtype, device=first.device) if out is None else out
        parts = list(self.split(flat).values())
        # One call, which a GPU does with a few kernels, where each layer would take one of its own.
        torch._foreach_copy_(parts, [tensors[entry.name].detach() for entry in self.entries])
        return flat

    def digest(self, tensors: Mapping[str, torch.Tensor]) -> str:
        """SHA-256 over the named tensors as float32, in this order: equal for equal weights, whatever file has them.

        Args:
            tensors: As for :meth:`flatten`. A zero counts the same whatever its sign.
        """
        import torch

        digest = hashlib.sha256(self.fingerprint.encode())
        for entry in self.entries:
            values = tensors[entry.name].detach().to("cpu", torch.float32) + 0.0
            digest.update(values.contiguous().numpy().reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of a (P,) vector by parameter name, each in the parameter's shape."""
        return {e.name: flat[e.offset : e.stop].view(e.shape) for e in self.entries}
