"""The order of the prunable parameters, and the conversion between named tensors and flat vectors of length P."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from causalprune.base.errors import CorruptError, DataError, UsageError
from causalprune.base.progress import logger
from causalprune.base.registry import did_you_mean
from causalprune.base.units import listed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from causalprune.models.prunable import Prunable

MAX_PARAMETERS = 2**40
"""A file that declares a larger P is damaged."""

KINDS = ("layer", "attention", "recurrent", "named")
"""What a prunable tensor belongs to."""


@dataclass(frozen=True)
class ParameterEntry:
    """One prunable tensor: a matrix that a layer multiplies by, or a tensor that was named.

    Attributes:
        name: Key in the model's state dict, such as ``"conv1.weight"``.
        shape: Its shape; axis ``filter_axis`` counts filters (Conv) or neurons (others).
        offset: Position of its first element in the flat vector.
        filter_axis: 1 for transposed convolutions and GPT-2's Conv1D, whose weights are (in, out, …), otherwise 0.
        kind: ``layer``, the weight of a Linear or Conv layer; ``attention``, a projection of the inputs of
            ``nn.MultiheadAttention``; ``recurrent``, a matrix of an LSTM, GRU or RNN; ``named``, anything else that a
            pattern named.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    filter_axis: int = 0
    kind: str = "layer"

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
        return f".{owner}".partition(".parametrizations.")[0].removeprefix(".")

    def units_first(self, tensor: torch.Tensor) -> torch.Tensor:
        """The weight of a linear layer as (out, in) where it is (in, out); any other tensor as it is. A view."""
        return tensor.T if self.filter_axis == 1 and tensor.dim() == 2 else tensor


@dataclass(frozen=True)
class ParameterIndex:
    """The prunable parameters of a model in one fixed order, that of ``model.named_modules()``.

    A tied weight is listed once, under its first name.
    """

    entries: tuple[ParameterEntry, ...]

    @classmethod
    def from_model(cls, model: nn.Module, prune: str | Iterable[str] = ()) -> ParameterIndex:
        """List the matrices of all Linear, Conv, attention and recurrent layers, and what else is named.

        Names are those without the wrappers of ``torch.compile`` and DataParallel; of a weight that is computed from
        another tensor, as under ``torch.nn.utils.prune``, that of the tensor
        (:func:`causalprune.models.prunable.prunable_weights`).

        Args:
            model: The network.
            prune: Patterns, as in :mod:`fnmatch`, of names of further parameters, such as ``tokens.weight``.

        Raises:
            UsageError: A pattern that matches nothing that can be pruned.
            DataError: The model has no such layer, and nothing is named.
        """
        from causalprune.models.prunable import prunable_weights

        weights, computed = prunable_weights(model)
        index = cls._of(weights).extended(model, prune)
        if not index.entries:
            raise DataError(
                f"model {type(model).__name__}",
                expected="at least one Linear, Conv, attention or recurrent layer to prune",
                found="weights computed from other tensors, which can't be pruned" if computed else "none",
                remedy="use another model, or name parameters to `prune`",
            )
        if computed:
            count = f"layer {computed[0]}" if len(computed) == 1 else f"{len(computed)} layers such as {computed[0]}"
            logger.warning("%s can't be pruned: the weight is computed from other tensors", count)
        return index

    @classmethod
    def _of(cls, weights: Iterable[Prunable]) -> ParameterIndex:
        """Those parameters, each once, under its first name."""
        first = {id(weight.parameter): weight for weight in reversed(list(weights))}
        return cls._joined(
            ParameterEntry(weight.name, tuple(weight.parameter.shape), 0, weight.filter_axis, weight.kind)
            for weight in reversed(list(first.values()))
        )

    @classmethod
    def _joined(cls, entries: Iterable[ParameterEntry]) -> ParameterIndex:
        """Those entries, one after the other."""
        joined: list[ParameterEntry] = []
        for entry in entries:
            joined.append(replace(entry, offset=joined[-1].stop if joined else 0))
        return cls(tuple(joined))

    def extended(self, model: nn.Module, prune: str | Iterable[str]) -> ParameterIndex:
        """The same index with further parameters of its model, in the order of the model's modules.

        Args:
            model: The network.
            prune: See :meth:`from_model`.

        Raises:
            UsageError: A pattern that matches nothing that can be pruned.
        """
        from causalprune.models.prunable import named_tensors, prunable_weights
        from causalprune.models.wrappers import named_parameters

        patterns = [prune] if isinstance(prune, str) else list(prune)
        if not patterns:
            return self
        parameters = named_parameters(model)
        taken = {id(parameters[entry.name]) for entry in self}
        found = named_tensors(model, patterns, taken)
        # What a checkpoint of an earlier version doesn't list keeps what is known of its layer.
        known = {id(weight.parameter): weight for weight in reversed(prunable_weights(model)[0])}
        more = self._of(known.get(id(weight.parameter), weight) for weight in found)
        place = {name: number for number, name in enumerate(parameters)}
        return self._joined(sorted((*self, *more), key=lambda entry: place[entry.name])) if len(more) else self

    def goes_with(self, model: nn.Module) -> bool:
        """Whether a model has these prunable parameters: those that are named, and all of Linear and Conv layers.

        Attention's projections, recurrent layers and Conv1D may be missing, as in files of earlier versions.
        """
        from causalprune.models.prunable import prunable_weights
        from causalprune.models.wrappers import named_parameters

        weights, _ = prunable_weights(model)
        known = {entry.name: entry for entry in self._of(weights)}
        parameters = named_parameters(model)
        place = {name: number for number, name in enumerate(parameters)}
        required = [entry.name for entry in self._of(weight for weight in weights if weight.always)]
        for entry in self:
            shape = tuple(parameters[entry.name].shape) if entry.name in parameters else None
            if shape != entry.shape or (
                entry.kind != "named"
                and (entry.name not in known or replace(known[entry.name], offset=entry.offset) != entry)
            ):
                return False
        names = [entry.name for entry in self]
        in_order = [name for name in names if name in required] == required
        return in_order and (not any(e.kind == "named" for e in self) or names == sorted(names, key=place.__getitem__))

    def lacking(self, model: nn.Module) -> list[str]:
        """The names of a model's layers' weights that this index, which goes with it, doesn't list."""
        from causalprune.models.prunable import prunable_weights

        listed_names = {entry.name for entry in self}
        return [entry.name for entry in self._of(prunable_weights(model)[0]) if entry.name not in listed_names]

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
        return [
            {"name": e.name, "shape": list(e.shape), "filter_axis": e.filter_axis}
            # Left out where it is as in files of earlier versions, whose fingerprints stay the same.
            | ({} if e.kind == "layer" else {"kind": e.kind})
            for e in self.entries
        ]

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
                if (kind := item.get("kind", "layer")) not in KINDS:
                    raise ValueError(f"kind {kind!r}"[:120])
                entries.append(ParameterEntry(item["name"], shape, offset, axis, kind))
                offset = entries[-1].stop
                if offset > MAX_PARAMETERS:
                    raise ValueError(f"{offset} parameters")
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise CorruptError(
                source, expected="a list of parameter names and shapes", found=str(error) or repr(error)[:80]
            ) from error
        if len({e.name for e in entries}) != len(entries):
            raise CorruptError(source, expected="distinct parameter names", found="a name twice")
        return cls(tuple(entries))

    def only(self, names: Collection[str]) -> ParameterIndex:
        """The index of some of the parameters, in the same order."""
        return self._joined(entry for entry in self.entries if entry.name in names)

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
            expected = f"a pattern that matches one of {listed(layers, 12)}{did_you_mean(pattern, layers)}"
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
