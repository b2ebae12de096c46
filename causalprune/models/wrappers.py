"""What PyTorch wraps around a network: the real names, and copies without the wrappers."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def inner(module: nn.Module) -> nn.Module | None:
    """What ``torch.compile``, DataParallel or DistributedDataParallel has wrapped; None if ``module`` is no wrapper."""
    if isinstance(module, (DataParallel, DistributedDataParallel)):
        wrapped: nn.Module = module.module
        return wrapped
    # The class of compiled modules is private, and importing it loads the compiler.
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def unwrapped(model: nn.Module) -> nn.Module:
    """The network without what is wrapped around it; wrapped parts of it stay wrapped."""
    while (within := inner(model)) is not None:
        model = within
    return model


def uncompiled(model: nn.Module) -> nn.Module:
    """The network without any wrapper; wrapped parts of it are replaced in place."""
    model = unwrapped(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if inner(child) is not None:
                setattr(module, name, unwrapped(child))
    return model


def plain_copy(model: nn.Module) -> nn.Module:
    """A deep copy in evaluation mode that runs the code of its classes: not compiled, and nothing of the original.

    A function that replaces ``forward`` of one object, as in ``model.forward = torch.compile(model.forward)``, would
    go on computing with the original's weights.
    """
    for module in model.modules():
        # Weights that a hook computes at every call; only leaves of the graph can be copied.
        computed = {k: v.detach() for k, v in vars(module).items() if isinstance(v, torch.Tensor) and not v.is_leaf}
        vars(module).update(computed)
    twin = uncompiled(copy.deepcopy(model)).eval()
    for module in twin.modules():
        if type(module).forward is not nn.Module.forward:
            module.__dict__.pop("forward", None)
    return twin


def named_modules(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """``model.named_modules(remove_duplicate=False)`` of the network without wrappers, which have no name here."""
    model = unwrapped(model)
    yield prefix, model
    for name, child in model._modules.items():
        if child is not None:
            yield from named_modules(child, f"{prefix}.{name}" if prefix else name)


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by name, each name as in the network without wrappers; a tied parameter has several."""
    return {
        f"{prefix}.{name}" if prefix else name: parameter
        for prefix, module in named_modules(model)
        for name, parameter in module._parameters.items()
        if parameter is not None
    }
