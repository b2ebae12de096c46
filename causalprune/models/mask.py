"""The mask: which prunable parameters are kept; held on a network during training, or applied to earlier weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalprune.base.errors import MismatchError
from causalprune.models.extra_state import is_extra_state
from causalprune.models.parameters import ParameterIndex
from causalprune.models.wrappers import named_modules, named_parameters


@dataclass(frozen=True)
class LayerSparsity:
    """Sparsity of one prunable tensor.

    Attributes:
        name: Its name, such as ``"conv1.weight"``.
        total: Number of weights.
        kept: Number of kept weights.
    """

    name: str
    total: int
    kept: int

    @property
    def sparsity(self) -> float:
        """Fraction of pruned weights in [0, 1]."""
        return 1 - self.kept / self.total


@dataclass(frozen=True, eq=False)
class Hold:
    """Sets the pruned weights of a model to +0.0 when called, as :meth:`Mask.bind` makes it.

    Attributes:
        held: Each parameter with pruned weights, and integers of its shape: all bits set to keep, none to prune.
    """

    held: tuple[tuple[nn.Parameter, torch.Tensor], ...]

    def __call__(self) -> None:
        """Set the pruned weights to +0.0."""
        for parameter, bits in self.held:
            # A bitwise AND with all ones keeps a float, with all zeros it gives +0.0, whatever it was. Multiplying
            # by 0 would give −0.0 and NaN; masked_fill_ is as exact, but 10 to 40 times slower on a CPU.
            parameter.detach().view(bits.dtype).bitwise_and_(bits)

    def gradients(self) -> None:
        """Set the gradients of the pruned weights to +0.0, where there are gradients."""
        for parameter, bits in self.held:
            if parameter.grad is not None:
                parameter.grad.view(bits.dtype).bitwise_and_(bits)


@dataclass(frozen=True, eq=False)
class Mask:
    """One bit per prunable parameter; True means keep.

    Attributes:
        index: The prunable parameters, in the order of ``keep``.
        keep: (P,) bool, on the CPU; don't change it.

    Raises:
        MismatchError: ``keep`` has another shape or dtype.
    """

    index: ParameterIndex
    keep: torch.Tensor

    def __post_init__(self) -> None:
        _check_bools("mask", self.keep, (self.index.total,))
        object.__setattr__(self, "keep", self.keep.detach().cpu().contiguous())

    @classmethod
    def all(cls, index: ParameterIndex) -> Mask:
        """The mask of a dense network, which keeps everything."""
        return cls(index, torch.ones(index.total, dtype=torch.bool))

    @classmethod
    def of_model(cls, model: nn.Module, index: ParameterIndex) -> Mask:
        """The mask that ``torch.nn.utils.prune`` has put into a model; one that keeps everything if there is none."""
        mask = cls.all(index)
        buffers = {
            f"{prefix}.weight_orig" if prefix else "weight_orig": module._buffers.get("weight_mask")
            for prefix, module in named_modules(model)
        }
        for name, keep in mask.tensors().items():
            if (found := buffers.get(name)) is not None:
                keep.copy_(found != 0)
        return cls(index, mask.keep)

    @classmethod
    def from_tensors(cls, index: ParameterIndex, tensors: Mapping[str, torch.Tensor]) -> Mask:
        """Make a mask from what :meth:`tensors` returned.

        Args:
            index: The prunable parameters.
            tensors: One bool tensor per prunable parameter, by its name and in its shape.

        Raises:
            MismatchError: A name is missing or unknown, or a tensor has another shape or dtype.
        """
        names = {entry.name for entry in index}
        for relation, odd in (("missing", names - set(tensors)), ("of no prunable parameter", set(tensors) - names)):
            if odd:
                raise MismatchError(
                    "mask", expected=f"one tensor for each of {len(names)} layers", found=f"{min(odd)} {relation}"
                )
        for entry in index:
            _check_bools(f"mask of {entry.name}", tensors[entry.name], entry.shape)
        return cls(index, index.flatten(tensors))

    @classmethod
    def from_numpy(cls, index: ParameterIndex, keep: npt.NDArray[np.bool_]) -> Mask:
        """The mask that keeps where ``keep`` (P,) is True; a copy."""
        return cls(index, torch.tensor(keep))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Views by parameter name, each in the parameter's shape."""
        return self.index.split(self.keep)

    def numpy(self) -> npt.NDArray[np.bool_]:
        """(P,) read-only view."""
        view = self.keep.numpy()
        view.flags.writeable = False
        return view

    def packed(self) -> npt.NDArray[np.uint8]:
        """(⌈P/8⌉,) the mask as bits; the first parameter is the highest bit of the first byte."""
        return np.packbits(self.numpy())

    @staticmethod
    def unpacked(bits: npt.NDArray[np.uint8], total: int) -> npt.NDArray[np.bool_]:
        """(P,) the inverse of :meth:`packed`; P is ``total``."""
        return np.unpackbits(bits, count=total).astype(bool)

    def only(self, names: Collection[str]) -> Mask:
        """The mask of some of the parameters."""
        parts = [self.keep[entry.offset : entry.stop] for entry in self.index if entry.name in names]
        return Mask(self.index.only(names), torch.cat(parts))

    @cached_property
    def num_kept(self) -> int:
        """Number of parameters kept."""
        return int(self.keep.count_nonzero())

    @property
    def num_pruned(self) -> int:
        """Number of parameters pruned."""
        return self.index.total - self.num_kept

    @property
    def sparsity(self) -> float:
        """Fraction of prunable parameters that are pruned, in [0, 1]."""
        return self.num_pruned / self.index.total

    def per_layer(self) -> list[LayerSparsity]:
        """Sparsity of each prunable tensor, in the order of the index."""
        return [
            LayerSparsity(entry.name, entry.size, int(self.keep[entry.offset : entry.stop].count_nonzero()))
            for entry in self.index
        ]

    def bind(self, model: nn.Module) -> Hold:
        """Make a function that sets the pruned weights of a model to +0.0.

        Call it after every optimizer step, because momentum and weight decay move pruned weights, too. A call allocates
        no tensor storage and skips layers without pruned weights. The function keeps as many bytes as the weights of
        the other layers. Move the model to its device first.

        Raises:
            MismatchError: The model lacks a parameter of this mask, or has it in another shape.
        """
        held: list[tuple[nn.Parameter, torch.Tensor]] = []
        parameters = named_parameters(model)
        for entry in self.index:
            parameter = parameters.get(entry.name)
            if parameter is None or tuple(parameter.shape) != entry.shape:
                raise MismatchError(
                    f"model {type(model).__name__}",
                    expected=f"a parameter {entry.name} of shape {entry.shape}",
                    found="none" if parameter is None else f"shape {tuple(parameter.shape)}",
                    remedy="use the mask with the model that it was made for",
                )
            keep = self.keep[entry.offset : entry.stop].view(entry.shape)
            if not keep.all():
                bits = torch.zeros_like(parameter, dtype=_INTEGERS[parameter.element_size()])
                held.append((parameter, bits.masked_fill_(keep.to(parameter.device), -1)))

        return Hold(tuple(held))

    def apply_(self, model: nn.Module) -> None:
        """Set every pruned weight of a model to +0.0, in place, whatever it was (including NaN and −0.0).

        Raises:
            MismatchError: The model lacks a parameter of this mask, or has it in another shape.
        """
        self.bind(model)()


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer type for a weight of so many bytes."""


def _check_bools(subject: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tensor.dtype != torch.bool or tuple(tensor.shape) != shape:
        raise MismatchError(
            subject,
            expected=f"torch.bool of shape {shape}",
            found=f"{tensor.dtype} of shape {tuple(tensor.shape)}",
        )


def rewind(model: nn.Module, weights: Mapping[str, torch.Tensor], mask: Mask) -> None:
    """Give a model earlier weights, then set the pruned weights to zero.

    Everything is restored, including biases, normalization parameters and statistics. The caller chooses the weights:
    the pretrained ones (Shah et al., arXiv 2412.03035, version 1), or those before the recording (later versions).

    Args:
        model: Changed in place.
        weights: A whole state dict of this model.
        mask: The mask to apply.

    Raises:
        MismatchError: The state dict or the mask belongs to another model; the model isn't changed.
    """
    own = model.state_dict()
    for relation, odd in (("missing", own.keys() - weights.keys()), ("of no such model", weights.keys() - own.keys())):
        if odd:
            raise MismatchError(
                "weights to rewind to",
                expected=f"those of this {type(model).__name__}",
                found=f"{min(odd)} {relation}",
                remedy="name a checkpoint of the same model",
            )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape and not is_extra_state(name):
            raise MismatchError(
                f"{name} to rewind to",
                expected=f"shape {tuple(own[name].shape)}",
                found=f"{tuple(tensor.shape)}",
                remedy="name a checkpoint of the same model",
            )
    hold = mask.bind(model)
    model.load_state_dict(weights)
    hold()
