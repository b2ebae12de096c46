"""What wraps a network: ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``."""

from __future__ import annotations

import copy

from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The network without its wrappers, at any depth, so that its parameters have the names of its own layers.

    What ``torch.compile`` wrapped is compiled in place instead, as by :meth:`torch.nn.Module.compile`. Networks inside
    are changed; the wrappers can't be used any more.
    """
    model = _inner(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            inner = _inner(child)
            if inner is not child:
                setattr(module, name, inner)
    return model


def _inner(module: nn.Module) -> nn.Module:
    while True:
        # Looked for by its attribute, because importing its class takes a second.
        compiled = getattr(module, "_orig_mod", None)
        if isinstance(compiled, nn.Module):
            compiled._compiled_call_impl = module.dynamo_ctx(compiled._call_impl)  # type: ignore[operator, assignment]
            module = compiled
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module


def plain_copy(model: nn.Module) -> nn.Module:
    """A deep copy in evaluation mode that runs the code of its classes: not compiled, and nothing of the original.

    A function that replaces ``forward`` of one object, as in ``model.forward = torch.compile(model.forward)``, would
    go on computing with the original's weights.
    """
    twin = unwrapped(copy.deepcopy(model)).eval()
    for module in twin.modules():
        module._compiled_call_impl = None
        if type(module).forward is not nn.Module.forward:
            module.__dict__.pop("forward", None)
    return twin
