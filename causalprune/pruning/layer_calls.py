"""Forward passes that pause wherever the weight of a layer is used, so that several walk a network layer by layer.

A pass sees a weight where PyTorch multiplies by it, not where a module is called. So it doesn't matter which module
holds the weight, whether a function uses it directly, as attention does, or how often it is used, as a recurrent layer
does once per step. What no product uses as a whole isn't seen: embeddings, bare parameters that are added, and the
packed projections of an attention whose queries come from elsewhere than its keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from causalprune.base.compute.inputs import Inputs, forward

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class Convolution:
    """How a convolution walks over its inputs; each tuple has one number per spatial dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    transposed: bool
    groups: int


@dataclass(eq=False)
class LayerCall:
    """One use of a weight in a forward pass.

    Attributes:
        name: Name of the weight.
        inputs: (N, in) of a linear layer, (N, in, …) of a convolution.
        bias: What the layer adds, if it does.
        convolution: Of a convolution; None for a linear layer.
        outputs: (N, out) or (N, out, …); None before they are computed.
    """

    name: str
    inputs: torch.Tensor
    bias: torch.Tensor | None
    convolution: Convolution | None = None
    outputs: torch.Tensor | None = None

    @property
    def groups(self) -> int:
        """Groups of the convolution; 1 for a linear layer."""
        return self.convolution.groups if self.convolution else 1

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution, whose weight is (in, out, …)."""
        return self.convolution is not None and self.convolution.transposed


Visit = Callable[[LayerCall, Callable[[], torch.Tensor]], torch.Tensor]
"""Gets a call and what computes its outputs; returns these."""

VisitGradient = Callable[[str, torch.Tensor], None]
"""Gets the name of a weight and the gradient by the outputs of one of its uses."""


class WeightUses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, calls ``visit`` at every product with one of the weights.

    Args:
        weights: The weights to watch, by name.
        visit: See :data:`Visit`.
        visit_gradient: Called in the backward pass wherever a gradient is multiplied by one of the weights.
    """

    def __init__(
        self, weights: Mapping[str, torch.Tensor], visit: Visit, visit_gradient: VisitGradient | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights, self._visit, self._visit_gradient = weights, visit, visit_gradient

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: nothing is compiled in these passes, and importing the compiler takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        call: LayerCall | None = None
        if func is _ATEN.addmm.default and not kwargs:
            call = self._call(args[2].T, args[1], args[0])
        elif func is _ATEN.mm.default:
            call = self._call(args[1].T, args[0])
            self._gradient(args[0], args[1])
        elif func is _ATEN.convolution.default:
            stride, padding, dilation, transposed, output_padding, groups = args[3:9]
            sizes = (tuple(stride), tuple(padding), tuple(dilation), tuple(output_padding))
            call = self._call(args[1], args[0], args[2], Convolution(*sizes, transposed, groups))
        elif func is _ATEN.convolution_backward.default:
            self._gradient(args[0], args[2])
        if call is None:
            return func(*args, **kwargs)
        return self._visit(call, lambda: func(*args, **kwargs))

    def _call(
        self,
        weight: torch.Tensor,
        inputs: torch.Tensor,
        bias: torch.Tensor | None = None,
        convolution: Convolution | None = None,
    ) -> LayerCall | None:
        name = self._name(weight)
        return LayerCall(name, inputs, bias, convolution) if name else None

    def _gradient(self, gradient: torch.Tensor, weight: torch.Tensor) -> None:
        name = self._visit_gradient and self._name(weight)
        if self._visit_gradient and name:
            self._visit_gradient(name, gradient)

    def _name(self, tensor: torch.Tensor) -> str:
        """The name of the weight that a tensor is, or empty."""
        for name, weight in self._weights.items():
            if (tensor.data_ptr(), tensor.shape, tensor.stride()) == (
                weight.data_ptr(),
                weight.shape,
                weight.stride(),
            ):
                return name
        return ""


@contextmanager
def layer_by_layer(*models: nn.Module) -> Iterator[None]:
    """Turn the fused kernels of attention and of recurrent layers off while the body runs: they multiply unseen.

    Only while a recurrent layer chooses its kernel is oneDNN off, and cuDNN: convolutions go on computing as ever.
    """
    fused, onednn, cudnn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled(), _cudnn()

    def plain(*_: Any) -> None:
        torch._C._set_mkldnn_enabled(False)
        torch._C._set_cudnn_enabled(False)

    def as_ever(*_: Any) -> None:
        torch._C._set_mkldnn_enabled(onednn)
        torch._C._set_cudnn_enabled(cudnn)

    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as hooks:
            for layer in (module for model in models for module in model.modules()):
                if isinstance(layer, nn.RNNBase):
                    hooks.enter_context(layer.register_forward_pre_hook(plain))
                    hooks.enter_context(layer.register_forward_hook(as_ever, always_call=True))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        as_ever()


def _cudnn() -> bool:
    enabled: bool = torch._C._get_cudnn_enabled()
    return enabled


def weight_uses(model: nn.Module, inputs: Inputs, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the weights that a forward pass multiplies by, in order, one for each use."""
    names: list[str] = []

    def visit(call: LayerCall, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        names.append(call.name)
        return compute()

    with torch.no_grad(), layer_by_layer(model), WeightUses(weights, visit):
        forward(model, inputs)
    return names


class _Cancelled(BaseException):
    """Unwinds a pass that isn't needed any more."""


@dataclass(eq=False)
class Walk:
    """A forward pass in a thread of its own, which runs only within :meth:`advance`.

    Attributes:
        model: The network.
        inputs: What it is called with.
        weights: The weights to pause at.
        after: Whether to pause once the outputs are computed, instead of before that.
    """

    model: nn.Module
    inputs: Inputs
    weights: dict[str, torch.Tensor]
    after: bool
    _call: LayerCall | None = field(default=None, init=False)
    _error: BaseException | None = field(default=None, init=False)
    _cancelled: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        # Two locks hand one token back and forth: either the caller runs, or the pass.
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="causalprune-walk", daemon=True)
        self._thread.start()

    def advance(self) -> LayerCall | None:
        """Go on to the next use of a weight; None at the end of the pass, whose error is raised here."""
        self._go.release()
        self._stopped.acquire()
        if self._error is not None:
            raise self._error
        return self._call

    def cancel(self) -> None:
        """End the pass where it is."""
        self._cancelled = True
        self._go.release()
        self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._cancelled:
                with torch.no_grad(), WeightUses(self.weights, self._visit):
                    forward(self.model, self.inputs)
        except _Cancelled:
            pass
        except BaseException as error:  # raised again in the caller's thread
            self._error = error
        self._call = None
        self._stopped.release()

    def _visit(self, call: LayerCall, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        if self.after:
            call.outputs = compute()
        self._call = call
        self._stopped.release()
        self._go.acquire()
        if self._cancelled:
            raise _Cancelled
        self._call = None
        outputs = call.outputs if self.after else compute()
        assert outputs is not None
        return outputs
