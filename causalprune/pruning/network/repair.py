"""Repair a pruned network in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from causalprune.base.compute.precision import full_precision
from causalprune.base.errors import MismatchError, UsageError
from causalprune.base.options import positive, require
from causalprune.models.mask import Mask
from causalprune.models.wrappers import named_parameters, unwrapped
from causalprune.pruning.names import REPAIR_RIDGE, SAMPLES
from causalprune.pruning.network.samples import Samples, batches_of
from causalprune.pruning.repair import RepairedLayer, repair_layers


@full_precision()
def repair(
    model: nn.Module,
    mask: Mask,
    *,
    dense: nn.Module | Mapping[str, Any],
    inputs: Samples,
    samples: int = SAMPLES,
    ridge: float = REPAIR_RIDGE,
) -> list[RepairedLayer]:
    """Set the kept weights so that each layer puts out again what the dense network's did; no labels, no gradients.

    In the order of the forward pass, the kept weights of each layer are set by least squares: fed with what the
    *pruned* network gives it, as repaired so far, it shall put out what the dense network's layer does
    (:func:`causalprune.pruning.repair.repair_layers` has the equation and its source). Running statistics of batch
    normalization become the dense network's. It takes seconds, and is worth more than any criterion where no training
    follows.

    Args:
        model: The pruned network; changed in place, on any device.
        mask: What :func:`causalprune.prune` returned; pruned weights stay exactly 0.
        dense: The network before it was pruned, or a copy of its state dict; not changed.
        inputs: Inputs (N, …) in a tensor, or batches of inputs or of (inputs, targets), such as a DataLoader, in which
            inputs may be several, in a tuple or a dictionary. They are moved to the model's device, and all held there.
        samples: How many of them; 500 to 3,000 are usual.
        ridge: Penalty on the change of the weights, a multiple of a layer's mean squared input; above 0.

    Returns:
        For each layer with pruned weights, the squared difference to the dense layer's outputs before and after,
        relative to their variance: Σ‖y − ŷ‖²/Σ‖y − ȳ‖², which may be above 1.

    Raises:
        MismatchError: ``dense`` is another network, or pruned itself; the mask is another network's, or isn't applied;
            a weight isn't used as that of a linear layer or a convolution.
        DataError: No samples, or inputs that aren't finite.
        UsageError: Inputs that can't be read, or a ``ridge`` that isn't a finite number above 0.

    Example:
        >>> import copy, torch, causalprune as cp
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> dense = copy.deepcopy(model)
        >>> mask = cp.prune(model, sparsity=0.5, criterion="magnitude")
        >>> layers = cp.repair(model, mask, dense=dense, inputs=torch.randn(200, 8))
        >>> all(layer.after < layer.before for layer in layers)
        True
    """
    require("`ridge`", ridge, positive)
    network = unwrapped(model)
    parameters = named_parameters(model)
    device = next(iter(parameters.values())).device
    mask.require_applied(model)
    keep = mask.tensors()
    original = _original(dense, network, device)
    weights = named_parameters(original)
    pruned = [n for n, k in keep.items() if not k.all()]
    if pruned and all(n in weights and not weights[n].detach()[~keep[n].to(device)].any() for n in pruned):
        raise MismatchError(
            "`dense`",
            expected="the network before it was pruned",
            found="one that is pruned as well",
            remedy="copy it before: copy.deepcopy(model), or copy.deepcopy(model.state_dict())",
        )
    batches = batches_of(inputs, samples, network)
    return list(repair_layers(network, original, mask, batches, ridge=ridge))


def _original(dense: nn.Module | Mapping[str, Any], model: nn.Module, device: torch.device) -> nn.Module:
    """The dense network on the device of the pruned one."""
    if isinstance(dense, nn.Module):
        found = unwrapped(dense)
        there = {parameter.device for parameter in found.parameters()}
        return found if there <= {device} else copy.deepcopy(found).to(device)
    if not isinstance(dense, Mapping):
        raise UsageError("`dense`", expected="a network or its state dict", found=type(dense).__name__)
    twin = copy.deepcopy(model)
    try:
        twin.load_state_dict(dense)
    except RuntimeError as error:
        raise MismatchError(
            "`dense`",
            expected=f"a state dict of this {type(model).__name__}",
            found=f"{error}".splitlines()[-1].strip()[:150],
        ) from error
    return twin
