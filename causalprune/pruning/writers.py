"""The layers of a network whose filters, neurons or channels may be pruned."""

from __future__ import annotations

from torch import nn

from causalprune.channels import ChannelGraph, last_layer
from causalprune.errors import MismatchError
from causalprune.parameters import ParameterIndex
from causalprune.pruning.groups import groups_per_tensor
from causalprune.specs import ModelSpec


def group_writers(
    granularity: str, model: nn.Module, index: ParameterIndex, spec: ModelSpec
) -> list[tuple[int, ...]] | None:
    """The layers whose filters, neurons or channels may be pruned, those together that write the same channels.

    Raises:
        UsageError: A library is missing.
        MismatchError: A network that has no such layer.
    """
    shape = spec.input_shape
    if granularity == "channel":
        graph = ChannelGraph(model.eval(), index, shape, wanted_by="granularity channel")
        writers = [channels.writers for channels in graph]
    elif granularity in ("filter", "neuron"):
        groups_per_tensor(index, granularity)
        outputs = last_layer(model.eval(), index, shape)
        writers = [(number,) for number in range(len(index)) if number != outputs]
    else:
        return None
    if not writers:
        raise MismatchError(
            f"granularity {granularity}",
            expected=f"a network with a {granularity} that can be pruned",
            found=f"outputs only in {spec.name}",
            remedy="use granularity parameter",
        )
    return writers
