"""Make a pruned network in memory smaller."""

from __future__ import annotations

from torch import nn

from causalprune.base.compute.inputs import parts_of
from causalprune.models.mask import Mask
from causalprune.models.wrappers import plain_copy, unwrapped
from causalprune.pruning.compact import compact_model
from causalprune.pruning.names import SAMPLES
from causalprune.pruning.network.samples import Samples, batches_of


def compact(model: nn.Module, mask: Mask, *, inputs: Samples, samples: int = SAMPLES) -> nn.Module:
    """Copy a network without the channels and neurons that are pruned as a whole: a smaller and faster one.

    Single zeros make no network faster, because dense kernels compute with them all the same. Whole channels can be
    left out: prune with ``granularity="channel"`` and then call this. What a pruned channel still puts out, by its bias
    and normalization, goes into what the next layers make of one kept channel
    (:func:`causalprune.pruning.compact.compact_model`). A channel that isn't constant on ``inputs`` stays.

    Call it last: train with ``mask.hold(optimizer)`` before. That one kept channel has weights of 0, which nothing
    holds in the smaller network.

    Args:
        model: The pruned network, on any device; not changed.
        mask: What :func:`causalprune.prune` returned.
        inputs: Inputs (N, …) in a tensor, or batches of inputs or of (inputs, targets), such as a DataLoader, whose
            lengths may differ. They decide what is constant, and the networks are compared on them.
        samples: How many of them.

    Returns:
        The smaller network, in evaluation mode, whose outputs on ``inputs`` are the same up to 1e-4 of the largest. It
        is made of the same modules, and can be saved whole and exported as any other.

    Raises:
        DataError: No channel or neuron has all its weights pruned, none of these can be removed, or there are no
            samples.
        MismatchError: The mask is another network's or isn't applied, the network can't be followed, or the smaller one
            would compute something else.
        UsageError: torch-pruning is missing.

    Example:
        >>> import torch, causalprune as cp
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> x = torch.randn(100, 8)
        >>> mask = cp.prune(model, sparsity=0.5, criterion="magnitude", granularity="channel", inputs=x)
        >>> cp.compact(model, mask, inputs=x)[0].out_features < 16
        True
    """
    mask.require_applied(model)
    network = unwrapped(model)
    batches = batches_of(inputs, samples, network)
    # Without what a compiled network or a wrapper adds; the copy that is made smaller is made of this one.
    plain = plain_copy(network)
    keep = {name: kept.to(parts_of(batches[0])[0].device) for name, kept in mask.tensors().items()}
    return compact_model(plain, mask.index, keep, batches).model
