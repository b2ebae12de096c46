"""Floating-point operations of a forward pass: as PyTorch computes it, and with every pruned weight skipped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._ops import HigherOrderOperator
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from causalprune.base.compute.inputs import example_inputs, forward
from causalprune.base.compute.shapes import InputShape
from causalprune.models.modes import evaluation_mode, least_batch
from causalprune.models.prunable import prunable_weights
from causalprune.models.wrappers import named_parameters
from causalprune.pruning.layer_calls import layer_by_layer

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one forward pass of one sample; a multiply-add counts as two.

    Matrix products and convolutions are counted, also those in recurrent and attention layers; biases, activations and
    normalizations are not.

    Attributes:
        dense: As PyTorch computes it.
        theoretical: If every pruned weight were skipped.
        uncounted: Operations of the network that have no formula here, such as ``torchvision::deform_conv2d``; their
            share is missing in both numbers.
    """

    dense: int
    theoretical: int
    uncounted: tuple[str, ...] = ()


def flops(model: nn.Module, input_shape: InputShape, keep: Mapping[str, torch.Tensor] | None = None) -> Flops:
    """Count the operations for one sample; the model stays as it is.

    Every matrix product and convolution is looked at by itself, with the weight that is one of its factors, whichever
    layer or function calls it. All elements of a weight are used equally often, so the operations that pruning saves
    are proportional to the pruned share of the weight, or of the part of it that the product uses.

    Args:
        model: The network.
        input_shape: Shape of one sample.
        keep: Bool tensors by parameter name, True for unpruned; None for a dense network.
    """
    counter = _Counter()
    device = next(model.parameters()).device
    with ExitStack() as stack:
        for context in (evaluation_mode(model), _unfused(model), torch.no_grad(), parametrize.cached()):
            stack.enter_context(context)
        for name, parameter in named_parameters(model).items():
            # What is added, such as a bias, is no factor.
            if keep and name in keep and parameter.dim() > 1:
                counter.prune(parameter, ~keep[name])
        for found in prunable_weights(model)[0]:
            if keep and found.name in keep and found.weight not in found.layer._parameters:
                # Under torch.nn.utils.prune and spectral normalization, the layer's weight is computed at every call.
                computes = partial(_prune_computed, counter, ~keep[found.name], found.weight)
                stack.enter_context(found.layer.register_forward_pre_hook(computes))
        stack.enter_context(counter)
        count = least_batch(model, training=False)
        forward(model, example_inputs(input_shape, count, device=device))
    return Flops(counter.dense // count, round(counter.theoretical / count), tuple(sorted(counter.uncounted)))


def _prune_computed(counter: _Counter, mask: torch.Tensor, weight: str, layer: nn.Module, _: Any) -> None:
    counter.prune(getattr(layer, weight), mask)


@contextmanager
def _unfused(model: nn.Module) -> Iterator[None]:
    """Compute layer by layer: without compiled code and without the kernels that run a whole layer."""
    with layer_by_layer(model), torch.compiler.set_stance("force_eager"):
        yield


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is computed while it is active."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dense, self.theoretical = 0, 0.0
        self.uncounted: set[str] = set()
        self._pruned: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def prune(self, weight: torch.Tensor, mask: torch.Tensor) -> None:
        """Skip the elements of a weight where ``mask`` is True."""
        # In the memory layout of the weight, so that a view of it is the same view of the mask. The weight is kept,
        # or another tensor could take its place in memory.
        layout = torch.empty_like(weight, dtype=torch.bool, requires_grad=False).copy_(mask)
        # Several in one memory: cuDNN wants all weights of a recurrent layer so.
        self._pruned.setdefault(weight.untyped_storage().data_ptr(), []).append((weight, layout))

    def __torch_dispatch__(
        self, function: Any, _types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        kind = function if isinstance(function, HigherOrderOperator) else function._overloadpacket
        formula = _formula(kind)
        if formula is None and kind is not function:
            with self:
                parts = function.decompose(*arguments, **keywords)
            if parts is not NotImplemented:
                return parts
        result = function(*arguments, **keywords)
        if formula is not None:
            count = int(formula(*arguments, **keywords, out_val=result))
            self.dense += count
            self.theoretical += count * math.prod(map(self._kept, _tensors((arguments, keywords))))
        elif kind is not function and _computes(function):
            self.uncounted.add(function._schema.name.removeprefix("aten::"))
        return result

    def _kept(self, operand: torch.Tensor) -> float:
        """The share of an operand's elements that aren't pruned."""
        if operand.layout != torch.strided:
            return 1.0
        for weight, mask in self._pruned.get(operand.untyped_storage().data_ptr(), ()):
            start = operand.storage_offset() - weight.storage_offset()
            if 0 <= start < max(1, weight.numel()):
                part = mask.as_strided(operand.shape, operand.stride(), start)
                return 1 - int(part.count_nonzero()) / max(1, part.numel())
        return 1.0


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _formula(kind: Any) -> Callable[..., int] | None:
    """How an operation is counted; one that works in place, such as ``addmm_``, is counted as the other."""
    name = getattr(kind, "__name__", "")
    other = getattr(_ATEN, name[:-1], None) if name.endswith("_") else None
    return next((table[key] for key in (kind, other) for table in (_FORMULAS, flop_registry) if key in table), None)


_HEAVY = re.compile(
    r"(^|_)(\w*mm|mv|addmv|v?dot|fft|conv\w*|\w*rnn|lstm|gru|attention|encoder|cdist|trilinear|linalg|embedding_bag|"
    r"cholesky|svd|lu|solve)(_|$)"
)
"""Names of operations of PyTorch that multiply and add."""
_LIGHT = re.compile(r"vector_norm|_check_errors|linalg_cross|_fused_(lstm|gru)_cell|^\w*gamma|unpack|comm")
"""Names that look like it, of operations that only go element by element."""


def _computes(function: Any) -> bool:
    """Whether an operation without a formula does more than elementwise work, as far as can be known."""
    space, _, name = function._schema.name.partition("::")
    if space == "aten":
        return bool(_HEAVY.search(name)) and not _LIGHT.search(name)
    return space not in ("prim", "prims", "profiler")


def _mv(matrix: torch.Tensor, *_: Any, **_keywords: Any) -> int:
    return 2 * matrix.numel()


def _addmv(_bias: torch.Tensor, matrix: torch.Tensor, *_: Any, **_keywords: Any) -> int:
    return 2 * matrix.numel()


def _addbmm(_bias: torch.Tensor, first: torch.Tensor, second: torch.Tensor, *_: Any, **_keywords: Any) -> int:
    return 2 * first.numel() * second.shape[-1]


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **_keywords: Any) -> int:
    """The products (…, L, d) by (…, S, d) and (…, L, S) by (…, S, e); a causal mask saves nothing."""
    return 2 * (query.numel() // query.shape[-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _onednn_layer(inputs: torch.Tensor, first: torch.Tensor, second: torch.Tensor, *_: Any, **_keywords: Any) -> int:
    return _recurrent(inputs, [first, second])


def _recurrent(inputs: torch.Tensor, weights: list[torch.Tensor], *_: Any, **_keywords: Any) -> int:
    """Every weight matrix is used once per step and sample; inputs are (steps, samples, d), or (steps·samples, d)."""
    return 2 * (inputs.numel() // inputs.shape[-1]) * sum(w.numel() for w in weights if w.dim() > 1)


_FORMULAS: dict[Any, Callable[..., int]] = {
    _ATEN.mv: _mv,
    _ATEN.dot: _mv,
    _ATEN.vdot: _mv,
    _ATEN.addmv: _addmv,
    _ATEN.addbmm: _addbmm,
    _ATEN.mkldnn_rnn_layer: _onednn_layer,
    _ATEN._cudnn_rnn: _recurrent,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention: _attention,
    _ATEN._scaled_dot_product_efficient_attention: _attention,
    _ATEN._scaled_dot_product_cudnn_attention: _attention,
}
"""Number of operations by the operation; those of PyTorch's own counter are looked up after these."""
