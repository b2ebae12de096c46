"""Repair: set the kept weights of a pruned network so that its layers put out again what the dense network's did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from causalprune.base.compute.inputs import Inputs
from causalprune.base.errors import DataError, MismatchError
from causalprune.base.progress import logger
from causalprune.base.units import listed
from causalprune.models.mask import Mask
from causalprune.models.modes import evaluation_mode
from causalprune.pruning.layer_calls import LayerCall, Walk, layer_by_layer, weight_uses
from causalprune.pruning.least_squares import RIDGE, Moments
from causalprune.pruning.patches import input_rows, output_rows, sample_slices, weight_rows, weights_of


@dataclass(frozen=True)
class RepairedLayer:
    """How near a layer of the pruned network comes to the dense one's outputs, on the samples of the repair.

    Attributes:
        name: Name of its weight.
        before: Σ‖y − ŷ‖²/Σ‖y − ȳ‖² with the weights that it had, y being the dense network's outputs.
        after: The same with the repaired weights.
    """

    name: str
    before: float
    after: float


def repair_layers(
    model: nn.Module,
    dense: nn.Module,
    mask: Mask,
    batches: Iterable[Inputs],
    *,
    ridge: float = RIDGE,
    names: Sequence[str] | None = None,
) -> Iterator[RepairedLayer]:
    """Set the kept weights of a pruned network, in place, by least squares, layer by layer.

    In the order of the forward pass, a layer gets for each output unit o, with kept inputs S,

        w_oS = argmin Σ ‖y_o − w_oS·u_S − b_o‖² + λ‖w_oS − w̄_oS‖²,

    where u are the inputs that the pruned network, as repaired so far, gives the layer, y what the dense network's
    layer puts out, w̄ the weights before the repair, and λ is ``ridge`` times the mean of the diagonal of the inputs'
    second moments. The bias b_o is free where the layer has one. A convolution is the same with the patches of its
    input. A weight that is used several times is fitted to all uses together. Layers of which nothing is pruned stay
    as they are, and so does what no product uses as a whole, such as embeddings; a warning names it. Both networks run
    in evaluation mode, and the running statistics of batch normalization are set to those of the dense network: the
    outputs before it are what is matched.

    No labels, no gradients. On the CPU, equal arguments give equal bits at the same number of threads. Memory: for one
    layer at a time the second moments in float64; for all samples the activations that the two networks hold at this
    layer; 64 MiB of patches.

    Source: derived here. The same least squares within a layer is the reconstruction of layer-wise Optimal Brain
    Surgeon (Dong et al., arXiv 1705.07565; Frantar & Alistarh, arXiv 2208.11580), whose layers see the dense
    network's inputs instead of the pruned one's.

    Args:
        model: The pruned network; changed in place, on any device.
        dense: The network that it was before pruning, on the same device; not changed.
        mask: Which weights are kept; pruned ones stay exactly 0.
        batches: Inputs, each a tensor, a sequence of arguments or a dictionary of them.
        ridge: See above, at least 0.
        names: Only these of :func:`layers_to_repair`; the others stay as they are, having been repaired already.

    Yields:
        Each layer once it is repaired. Until the iteration has ended, both networks are in evaluation mode.

    Raises:
        MismatchError: The networks differ, or a weight isn't used as that of a linear layer or a convolution.
        DataError: No samples, or inputs that aren't finite.
        NumericalError: Without a ridge, too few samples to determine the weights.
    """
    left = layers_to_repair(mask) if names is None else list(names)
    mask.bind(model)
    keep = {name: mask.index[name].units_first(keep) for name, keep in mask.tensors().items()}
    networks = _Networks(model, dense, keep, _weights(model, mask, left), _weights(dense, mask, left))
    networks.require_alike()
    passes = list(batches)
    if not passes:
        raise DataError("samples to repair with", expected="at least one batch", found="none")
    copy_batch_statistics(dense, model)
    with evaluation_mode(model, dense), layer_by_layer(model, dense):
        uses = Counter(weight_uses(model, passes[0], networks.weights))
        unseen = [name for name in left if not uses[name]]
        if unseen and len(unseen) == len(left):
            raise MismatchError(
                f"layer {unseen[0]}",
                expected="to be reached in a forward pass",
                found="that nothing multiplies by it, nor by any other",
                remedy="leave it dense, or use it as a linear layer or a convolution does",
            )
        warn_of_unseen(unseen)
        left = [name for name in left if uses[name]]
        while left:
            for layer in _one_pass(networks, passes, left, uses, ridge):
                left.remove(layer.name)
                yield layer


def layers_to_repair(mask: Mask) -> list[str]:
    """Names of the weights of which some are pruned and some are kept."""
    return [layer.name for layer in mask.per_layer() if 0 < layer.kept < layer.total]


def warn_of_unseen(names: Sequence[str]) -> None:
    """Say that layers aren't repaired because nothing is known of their inputs, if there are any."""
    if names:
        logger.warning("not repaired, because no product uses them as a whole: %s", listed(names))


@dataclass(frozen=True, eq=False)
class _Networks:
    """The pruned and the dense network, and the weights of each at which their passes pause."""

    model: nn.Module
    dense: nn.Module
    keep: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    originals: dict[str, torch.Tensor]

    def require_alike(self) -> None:
        for name, weight in self.weights.items():
            found = self.originals[name].shape
            if found != weight.shape:
                raise MismatchError(
                    f"{name} of the dense network",
                    expected=f"shape {tuple(weight.shape)}",
                    found=f"{tuple(found)}",
                    remedy=_ANOTHER,
                )


_ANOTHER = "name the dense network that the pruned one comes from"


def _one_pass(
    networks: _Networks, batches: Sequence[Inputs], left: Sequence[str], uses: Counter[str], ridge: float
) -> Iterator[RepairedLayer]:
    """Walk all batches through both networks together, and repair the layers on the way.

    The first use of a weight that is used again later must go on with the old weight, and so do the layers after it.
    Once all its uses are seen and it is repaired, the pass ends, and the next one goes on behind it.
    """
    weights = {name: networks.weights[name] for name in left}
    originals = {name: networks.originals[name] for name in left}
    with ExitStack() as stack:
        pruned = [Walk(networks.model, batch, weights, after=False) for batch in batches]
        whole = [Walk(networks.dense, batch, originals, after=True) for batch in batches]
        for walk in (*pruned, *whole):
            stack.callback(walk.cancel)
        fit: _LayerFit | None = None
        seen = 0
        while True:
            calls = [(walk.advance(), other.advance()) for walk, other in zip(pruned, whole, strict=True)]
            name = _common_name(calls)
            if name is None:
                return
            if fit is not None and fit.name != name:
                continue
            for call, target in cast(list[tuple[LayerCall, LayerCall]], calls):
                if fit is None:
                    fit = _LayerFit(networks, call)
                fit.add(call, target)
            seen += 1
            if fit is not None and seen == uses[name]:
                yield fit.solve(ridge)
                if seen > 1:
                    return
                fit, seen = None, 0


class _LayerFit:
    """The second moments of one layer's inputs and of what it should put out, and its new weights."""

    def __init__(self, networks: _Networks, call: LayerCall) -> None:
        self.name = call.name
        self._call = call
        self._weight = networks.weights[call.name]
        self._keep = self._rows(networks.keep[call.name].to(self._weight.device))
        self._bias = _parameter(networks.model, call.bias)
        groups, outputs, inputs = self._keep.shape
        free = self._bias is not None
        self._moments = Moments(groups, inputs, outputs, free_bias=free, device=self._weight.device)

    def _rows(self, weight: torch.Tensor) -> torch.Tensor:
        return weight_rows(weight, self._call.groups, transposed=self._call.transposed)

    def add(self, call: LayerCall, target: LayerCall) -> None:
        """Add a use of the layer in the pruned network, and the same one in the dense network."""
        same_bias = self._bias is None or (call.bias is not None and call.bias.data_ptr() == self._bias.data_ptr())
        if call.convolution != self._call.convolution or not same_bias:
            raise MismatchError(
                f"layer {self.name}",
                expected="to be used in the same way each time",
                found="another bias, stride or padding",
                remedy="leave it dense",
            )
        outputs = cast(torch.Tensor, target.outputs)
        for samples in sample_slices(call, self._weight):
            y = output_rows(outputs, call.convolution, samples)
            if self._bias is None and call.bias is not None:
                y = y - call.bias.reshape(len(self._keep), 1, -1)
            self._moments.add(input_rows(call, self._weight, samples), y)

    def solve(self, ridge: float) -> RepairedLayer:
        """Set the weights, and the bias if there is one."""
        prior = self._rows(self._weight)
        bias = None if self._bias is None else self._bias.reshape(len(self._keep), -1)
        before, scale = self._moments.error(prior, bias)
        if not math.isfinite(before):
            raise DataError(f"inputs of layer {self.name}", expected="finite numbers", found="others")
        found = self._moments.solve(prior, self._keep, ridge)
        after, _ = self._moments.error(found)
        self._weight.copy_(weights_of(found, self._weight.shape, transposed=self._call.transposed))
        if self._bias is not None:
            self._bias.copy_(self._moments.bias(found).reshape(self._bias.shape))
        # A layer whose outputs never vary is met exactly by its bias.
        return RepairedLayer(self.name, before / (scale or 1.0), after / (scale or 1.0))


def _common_name(calls: Sequence[tuple[LayerCall | None, LayerCall | None]]) -> str | None:
    """The weight at which all passes stand; None if all are at their end."""
    names = {None if call is None else call.name for pair in calls for call in pair}
    if len(names) > 1:
        raise MismatchError(
            "order of the layers",
            expected="the same for all batches, and in both networks",
            found=" and ".join(sorted(str(name or "none") for name in names)),
            remedy=_ANOTHER,
        )
    return names.pop()


def _weights(model: nn.Module, mask: Mask, names: Sequence[str]) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    missing = [name for name in names if name not in parameters]
    if missing:
        raise MismatchError("dense network", expected=f"a parameter {missing[0]}", found="none", remedy=_ANOTHER)
    return {name: mask.index[name].units_first(parameters[name].detach()) for name in names}


def _parameter(model: nn.Module, tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The parameter that a tensor is, if it is one."""
    if tensor is None:
        return None
    same = (p for p in model.parameters() if p.data_ptr() == tensor.data_ptr() and p.numel() == tensor.numel())
    found = next(same, None)
    return None if found is None else found.detach()


def copy_batch_statistics(dense: nn.Module, model: nn.Module) -> None:
    """Give each batch normalization the running statistics of the dense network's."""
    layers = dict(dense.named_modules())
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and name in layers:
            for buffer, value in layers[name].named_buffers(recurse=False):
                module.get_buffer(buffer).copy_(value)
