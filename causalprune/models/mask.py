"""The mask: which prunable parameters are kept; held on a network during training, or applied to earlier weights."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from causalprune.base.errors import MismatchError, UsageError
from causalprune.models.extra_state import is_extra_state
from causalprune.models.parameters import ParameterEntry, ParameterIndex
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


class Hold:
    """Keeps the pruned weights of a model at +0.0, see :meth:`Mask.hold` and :meth:`Mask.bind`.

    As a context manager it ends with the block, otherwise with :meth:`release`.

    Args:
        held: Each parameter with pruned weights, and which of its elements are kept, bool in its shape.
        biases: Vectors of which a step of the optimizer must not move some elements, and which, (n,) int64.
    """

    def __init__(
        self,
        held: Iterable[tuple[nn.Parameter, torch.Tensor]],
        biases: Iterable[tuple[nn.Parameter, torch.Tensor]] = (),
    ) -> None:
        # All bits set to keep an element, none to prune it.
        self._held = [(parameter, _bits(parameter, keep)) for parameter, keep in held]
        self._biases = list(biases)
        self._before: list[torch.Tensor] = []
        self._hooks: list[RemovableHandle] = []

    def before_step(self) -> None:
        """Note the biases that the coming step of the optimizer must not move; the next call puts them back.

        What else changes them, such as ``load_state_dict``, stays.
        """
        # Once, because a copy to a GPU at each step would wait for it.
        self._biases = [(b, which if which.device == b.device else which.to(b.device)) for b, which in self._biases]
        self._before = [bias.detach()[which] for bias, which in self._biases]

    def __call__(self) -> None:
        """Set the pruned weights to +0.0; after a step, also put back the biases of :meth:`before_step`."""
        for number, (parameter, bits) in enumerate(self._held):
            if parameter.device != bits.device or parameter.element_size() != bits.element_size():
                # The model was moved since.
                bits = _bits(parameter, bits != 0)
                self._held[number] = (parameter, bits)
            # A bitwise AND with all ones keeps a float, with all zeros it gives +0.0, whatever it was. Multiplying
            # by 0 would give −0.0 and NaN; masked_fill_ is as exact, but 10 to 40 times slower on a CPU.
            parameter.detach().view(bits.dtype).bitwise_and_(bits)
        before, self._before = self._before, []
        for (bias, which), values in zip(self._biases, before, strict=False):
            bias.detach().index_copy_(0, which, values)

    def gradients(self) -> None:
        """Set the gradients of the pruned weights to +0.0, where there are gradients."""
        for parameter, bits in self._held:
            if parameter.grad is not None:
                parameter.grad.view(bits.dtype).bitwise_and_(bits)

    def after_steps_of(self, optimizer: Optimizer) -> None:
        """Call this around each step of an optimizer, until the hold is released.

        Raises:
            UsageError: It trains none of these weights, or takes no hooks.
        """
        if not hasattr(optimizer, "register_step_post_hook"):
            raise UsageError(
                "Mask.hold",
                expected="a torch.optim.Optimizer",
                found=type(optimizer).__name__,
                remedy="pass the optimizer that it wraps",
            )
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if self._held and not any(id(parameter) in trained for parameter, _ in self._held):
            raise UsageError(
                "Mask.hold",
                expected="an optimizer of the pruned weights",
                found="one that has none of them",
                remedy="make it of the parameters of the network that was pruned",
            )
        self._hooks.append(optimizer.register_step_pre_hook(lambda *_: self.before_step()))
        self._hooks.append(optimizer.register_step_post_hook(lambda *_: self()))

    def release(self) -> None:
        """Let the pruned weights be trained from now on; once more does nothing."""
        while self._hooks:
            self._hooks.pop().remove()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _bits(parameter: nn.Parameter, keep: torch.Tensor) -> torch.Tensor:
    bits = torch.zeros_like(parameter, dtype=_INTEGERS[parameter.element_size()])
    return bits.masked_fill_(keep.to(parameter.device), -1)


@dataclass(frozen=True, eq=False)
class Mask:
    """Which weights are kept, as :func:`causalprune.prune` returns it: one bit per prunable weight, True to keep.

    P is the number of weights of all Linear, Conv, attention and recurrent layers, and of what else was named. A mask
    can be applied to a network, held while that is trained on, saved and loaded.

    Attributes:
        index: The prunable parameters, in the order of ``keep``.
        keep: (P,) bool, on the CPU; don't change it.

    Raises:
        MismatchError: ``keep`` has another shape or dtype.
    """

    index: ParameterIndex
    keep: torch.Tensor

    def __repr__(self) -> str:
        layers = f"{len(self.index)} layer{'s' if len(self.index) != 1 else ''}"
        return f"Mask({self.num_pruned:,} of {self.index.total:,} weights pruned, in {layers})"

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
            f"{prefix}.{name}" if prefix else name: module._buffers.get(f"{name.removesuffix('_orig')}_mask")
            for prefix, module in named_modules(model)
            for name in module._parameters
            if name.endswith("_orig")
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

    @classmethod
    def so_far(cls, model: nn.Module, mask: Mask | None, prune: str | Iterable[str] = ()) -> Mask:
        """What of a network is pruned already, among all that can be.

        Args:
            model: The network.
            mask: What is pruned; None for what ``torch.nn.utils.prune`` has pruned.
            prune: See :meth:`among`.

        Raises:
            UsageError: A pattern that matches nothing that can be pruned.
            MismatchError: The mask of another network.
        """
        if mask is None:
            return cls.of_model(model, ParameterIndex.from_model(model, prune))
        mask.bind(model)
        return mask.among(model, prune)

    def among(self, model: nn.Module, prune: str | Iterable[str]) -> Mask:
        """The same mask with further parameters of its network, which are kept.

        Args:
            model: The network.
            prune: Patterns of their names, see :meth:`.ParameterIndex.extended`.

        Raises:
            UsageError: A pattern that matches nothing that can be pruned.
        """
        return self.within(self.index.extended(model, prune))

    def within(self, index: ParameterIndex) -> Mask:
        """The same mask among further parameters, which are kept."""
        if index.entries == self.index.entries:
            return self
        wide = Mask.all(index)
        parts = wide.tensors()
        for name, keep in self.tensors().items():
            parts[name].copy_(keep)
        return Mask(index, wide.keep)

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

    def bind(self, model: nn.Module, optimizer: Optimizer | None = None) -> Hold:
        """Make a function that sets the pruned weights of a model to +0.0.

        For a loop that has an optimizer, :meth:`hold` calls it after every step. A call allocates no tensor storage and
        skips layers without pruned weights. The function keeps as many bytes as the weights of the other layers.

        Args:
            model: The network.
            optimizer: What takes the steps after which the function is called, if any. Before each of them,
                :meth:`Hold.before_step` has to be called, for the biases that :meth:`hold` tells of.

        Raises:
            MismatchError: The model lacks a parameter of this mask, or has it in another shape.
        """
        adaptive = optimizer is not None and not isinstance(optimizer, torch.optim.SGD)
        return Hold(self._pruned_parameters(model), self._dead_biases(model) if adaptive else ())

    def require_applied(self, model: nn.Module) -> None:
        """Check that the pruned weights of a model are 0.

        Raises:
            MismatchError: Some aren't, or it is another network.
        """
        self.bind(model)
        parameters = named_parameters(model)
        for name, keep in self.tensors().items():
            weights = parameters[name].detach()
            if bool((weights != 0)[~keep.to(weights.device)].any()):
                raise MismatchError(
                    "model",
                    expected="pruned weights of exactly 0",
                    found=f"others in {name}",
                    remedy="call mask.apply_(model) first, and mask.hold(optimizer) before any training",
                )

    def hold(self, optimizer: Optimizer, model: nn.Module | None = None) -> Hold:
        """Keep the pruned weights at 0 in any further training with an optimizer, from now on.

        Momentum and weight decay move pruned weights even if their gradients are 0, so they are set to 0 after every
        ``optimizer.step()``, by a hook of the optimizer: whatever calls it, gradient scalers and
        :class:`causalprune.Recorder` included. What is trained may be any parameters; those of other optimizers need a
        hold of their own.

        With other optimizers than SGD, no step moves the bias of a unit without any weights. Before a batch
        normalization its gradient is 0 but for rounding, which Adam and its kin turn into steps as large as any other;
        the normalization, whose variance is 0 there, makes hundreds of times that of them in evaluation mode.

        Args:
            optimizer: What takes the steps.
            model: The network; by default the one to which this mask was applied last, as ``causalprune.prune`` does.

        Returns:
            The hold. It lasts as long as the optimizer, or until its ``release()``, or for a ``with`` block.

        Raises:
            UsageError: The optimizer trains none of the pruned weights; no network is known.
            MismatchError: The model lacks a parameter of this mask, or has it in another shape.

        Example:
            >>> import torch, causalprune as cp
            >>> model = torch.nn.Linear(4, 2)
            >>> optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
            >>> mask = cp.prune(model, sparsity=0.5, criterion="magnitude")
            >>> with mask.hold(optimizer):
            ...     model(torch.randn(8, 4)).sum().backward()
            ...     _ = optimizer.step()
            >>> int((model.weight == 0).sum())
            4
        """
        known = _APPLIED.get(self)
        model = model if model is not None or known is None else known()
        if model is None:
            raise UsageError(
                "Mask.hold",
                expected="a network that the mask was applied to",
                found="none",
                remedy="pass `model`, or call apply_(model) first",
            )
        hold = self.bind(model, optimizer)
        hold.after_steps_of(optimizer)
        hold()
        return hold

    def _pruned_parameters(self, model: nn.Module) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """The parameters of a model with pruned weights, and which of these are kept."""
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
                held.append((parameter, keep))
        return held

    def _dead_biases(self, model: nn.Module) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """The biases of layers some of whose units have no weights left, and which units these are."""
        parameters, found = named_parameters(model), []
        for entry, keep in zip(self.index, self.tensors().values(), strict=True):
            if entry.kind in ("named", "recurrent"):
                # No unit's weights, such as a scale or an embedding; or not all of them.
                continue
            dead = ~keep.movedim(entry.filter_axis, 0).flatten(1).any(1)
            bias = next((parameters[name] for name in _bias_names(entry) if name in parameters), None)
            if bias is not None and bias.shape == dead.shape and dead.any():
                found.append((bias, dead.nonzero()[:, 0]))
        return found

    def apply_(self, model: nn.Module) -> None:
        """Set every pruned weight of a model to +0.0, in place, whatever it was (including NaN and −0.0).

        Raises:
            MismatchError: The model lacks a parameter of this mask, or has it in another shape.
        """
        self.bind(model)()
        _APPLIED[self] = weakref.ref(model)

    def save(self, path: str | Path) -> None:
        """Write the mask as a safetensors file: a bool tensor per prunable weight, by its name.

        Raises:
            StorageError: The file system refused.
        """
        from causalprune.models.mask_file import save_mask

        save_mask(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Mask:
        """Read what :meth:`save` wrote, or a command beside a network: ``final.mask.safetensors``.

        Raises:
            DataError: No file.
            CorruptError: Another file, or a damaged one.
        """
        from causalprune.models.mask_file import load_mask

        return load_mask(Path(path))


_APPLIED: weakref.WeakKeyDictionary[Mask, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()
"""The network to which a mask was applied last. Not an attribute, because a mask can be copied and pickled."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer type for a weight of so many bytes."""


def _bias_names(entry: ParameterEntry) -> list[str]:
    """What the parameter of a layer's bias may be called, whether or not its weight or itself is a computed one."""
    owner = f"{entry.layer}." if entry.layer else ""
    own = entry.name.removeprefix(owner).removeprefix("parametrizations.").removesuffix(".original")
    bias = own.removesuffix("_orig").replace("weight", "bias")
    return [f"{owner}{name}" for name in (bias, f"{bias}_orig", f"parametrizations.{bias}.original")]


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
