"""A layer as a matrix product: its inputs as rows, one per output position, and its weights as one row per unit."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch.nn import functional

from causalprune.pruning.layer_calls import Convolution, LayerCall

_CHUNK_VALUES = 2**24
"""Values of the input rows that are made at once: 64 MiB in float32."""


def sample_slices(call: LayerCall, weight: torch.Tensor) -> Iterator[slice]:
    """Divide the samples of a call, so that the input rows of each part have a bounded size."""
    values = call.inputs[:1].numel() * prod(weight.shape[2:])
    step = max(1, _CHUNK_VALUES // max(1, values))
    for start in range(0, len(call.inputs), step):
        yield slice(start, start + step)


def input_rows(call: LayerCall, weight: torch.Tensor, samples: slice) -> torch.Tensor:
    """What some samples of a call are multiplied by.

    Args:
        call: The call.
        weight: The weight that it uses.
        samples: The samples.

    Returns:
        (groups, rows, inputs per unit): a row is the input of one sample at one position, in the order of the columns
        of :func:`weight_rows`.
    """
    x, how = call.inputs[samples], call.convolution
    kernel = tuple(weight.shape[2:])
    if how is None:
        return x[None]
    if how.transposed:
        x = _upsampled(x, kernel, how)
        stride = (1,) * len(kernel)
    else:
        x = functional.pad(x, [p for size in reversed(how.padding) for p in (size, size)])
        stride = how.stride
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, how.dilation, strict=True), start=2):
        x = x.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    # (N, C, positions…, kernel…) → (groups, N·positions, C/groups·kernel)
    dimensions = len(kernel)
    positions, window = range(2, 2 + dimensions), range(2 + dimensions, 2 + 2 * dimensions)
    if how.transposed:
        x = x.flip(tuple(window))
    channels = x.shape[1] // how.groups
    x = x.reshape(len(x), how.groups, channels, *x.shape[2:])
    x = x.permute(1, 0, *(p + 1 for p in positions), 2, *(w + 1 for w in window))
    return x.reshape(how.groups, -1, channels * prod(kernel))


def _upsampled(x: torch.Tensor, kernel: tuple[int, ...], how: Convolution) -> torch.Tensor:
    """The input of the plain convolution of stride 1 that a transposed one is: zeros between, and around."""
    for axis, stride in enumerate(how.stride, start=2):
        if stride > 1:
            shape = list(x.shape)
            shape[axis] = (shape[axis] - 1) * stride + 1
            wide = x.new_zeros(shape)
            wide.narrow(axis, 0, shape[axis])[(slice(None),) * axis + (slice(None, None, stride),)] = x
            x = wide
    around: list[int] = []
    for size, gap, padding, more in zip(kernel, how.dilation, how.padding, how.output_padding, strict=True):
        reach = gap * (size - 1) - padding
        around = [reach, reach + more, *around]
    return functional.pad(x, around)


def output_rows(outputs: torch.Tensor, how: Convolution | None, samples: slice) -> torch.Tensor:
    """(groups, rows, units per group): some samples' outputs of a layer, in the order of :func:`input_rows`."""
    y = outputs[samples]
    if how is None:
        return y[None]
    y = y.reshape(len(y), how.groups, -1, *y.shape[2:]).movedim(2, -1)
    return y.transpose(0, 1).reshape(how.groups, -1, y.shape[-1])


def weight_rows(weight: torch.Tensor, groups: int = 1, *, transposed: bool = False) -> torch.Tensor:
    """(groups, units per group, inputs per unit): the weights of each unit; a view where that is possible.

    Args:
        weight: Of a linear layer or a convolution.
        groups: Groups of the convolution.
        transposed: Whether the convolution is a transposed one, whose weight is (in, out, …).
    """
    rows = weight.reshape(groups, -1, *weight.shape[1:])
    return (rows.transpose(1, 2) if transposed else rows).flatten(2)


def weights_of(rows: torch.Tensor, shape: torch.Size, *, transposed: bool = False) -> torch.Tensor:
    """A weight of the given shape, from what :func:`weight_rows` makes of it."""
    if not transposed:
        return rows.reshape(shape)
    inputs = shape[0] // len(rows)
    return rows.reshape(*rows.shape[:2], inputs, *shape[2:]).transpose(1, 2).reshape(shape)
