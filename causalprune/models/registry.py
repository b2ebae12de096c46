"""From the name of a model to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import CorruptError, MismatchError, UsageError
from causalprune.base.registry import call_with
from causalprune.base.specs import ModelSpec
from causalprune.base.user_code import import_user_module
from causalprune.models.modes import evaluation_mode
from causalprune.models.names import MODELS, check_model_name


def build_model(spec: ModelSpec, *, seed: int, trust_code: bool = True) -> nn.Module:
    """Build a network with weights that depend on ``seed`` alone; the global random state is left as it was.

    Args:
        spec: Its name and the sizes of its input and output.
        seed: Seed of the initial weights.
        trust_code: Whether a ``package.module:factory`` may run.

    Raises:
        UsageError: An unknown model, or one that can't take this input.
        CorruptError: Code of a checkpoint that isn't trusted.
    """
    expected = check_model_name(spec.name)
    if expected or not spec.name:
        raise UsageError("`model`", expected=expected or "a name", found=repr(spec.name))
    factory = _factory(spec.name, trust_code=trust_code)
    if spec.hidden and "hidden" not in signature(factory).parameters:
        raise UsageError("`hidden`", expected="`model=mlp`", found=spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(factory, spec)
        _check_output(model, spec)
    return model


def rebuild_model(
    spec: ModelSpec, weights: Mapping[str, torch.Tensor], source: str, *, trust_code: bool = False
) -> nn.Module:
    """Build the network that a file describes and whose weights it holds, but without them.

    A built-in model is first built without storage, so that sizes which the file's weights don't have are never
    allocated.

    Args:
        spec: What the file says the model is.
        weights: The file's weights.
        source: The file, for the error.
        trust_code: Whether a ``package.module:factory`` may run.

    Raises:
        MismatchError: The file's weights aren't those of this model.
        CorruptError: Code of a checkpoint that isn't trusted.
    """
    name = spec.name
    if check_model_name(name) or not name:
        raise CorruptError(source, expected="a known model", found=f"{name!r}"[:80])
    if ":" not in name or name.startswith("torchvision:"):
        # Imported before: a constant of its module must not become a tensor without storage.
        factory = _factory(name, trust_code=False)
        try:
            with torch.device("meta"):
                shapes = {key: value.shape for key, value in _build(factory, spec).state_dict().items()}
        except (UsageError, RuntimeError, OverflowError, ValueError) as error:
            found = f"{error}".splitlines()[0][:150]
            raise CorruptError(source, expected=f"a model {name} that can be built", found=found) from error
        if shapes != {key: value.shape for key, value in weights.items()}:
            raise MismatchError(
                source, expected=f"the weights of {name}", found="others", remedy="use the file that a stage wrote"
            )
        with torch.random.fork_rng(devices=[]):
            return _build(factory, spec)
    return build_model(spec, seed=0, trust_code=trust_code)


def _factory(name: str, *, trust_code: bool) -> Callable[..., Any]:
    family, colon, rest = name.partition(":")
    if not colon:
        factory: Callable[..., Any] = MODELS.load(name)
        return factory
    if family == "torchvision":
        from causalprune.models.torchvision_models import torchvision_model

        return partial(torchvision_model, rest)
    return partial(_build_user_model, name, trust_code)


def _build(factory: Callable[..., Any], spec: ModelSpec) -> nn.Module:
    hidden = {"hidden": spec.hidden} if spec.hidden else {}
    model: nn.Module = call_with(factory, input_shape=spec.input_shape, num_outputs=spec.num_outputs, **hidden)
    return model


def _build_user_model(name: str, trust_code: bool, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    factory = _user_factory(name, trust_code=trust_code)
    try:
        model = call_with(factory, input_shape=input_shape, num_outputs=num_outputs)
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__}: {error}"
        raise UsageError(f"`model` {name}", expected="a factory that returns a network", found=found) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"`model` {name}", expected="a torch.nn.Module", found=type(model).__name__)
    return model


def _user_factory(name: str, *, trust_code: bool) -> Callable[..., Any]:
    if not trust_code:
        raise CorruptError(
            f"checkpoint that names {name}",
            expected="a built-in model, or permission to run code",
            found="code of its own",
            remedy="pass `trust_code` if you trust where the checkpoint comes from",
        )
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(import_user_module(module_name), attribute)
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__}: {error}"
        raise UsageError(f"`model` {name}", expected="package.module:factory that imports", found=found) from error
    if not callable(factory):
        raise UsageError(f"`model` {name}", expected="something callable", found=type(factory).__name__)
    return factory


def _check_output(model: nn.Module, spec: ModelSpec) -> None:
    """Run the model once on nothing but zeros, so that a misfit shows before any training."""
    try:
        with evaluation_mode(model), torch.no_grad():
            output = model(torch.zeros(2, *spec.input_shape))
    except Exception as error:
        shape = "×".join(map(str, spec.input_shape))
        raise UsageError(
            f"model {spec.name}", expected=f"a network that takes {shape}", found=f"{error}"[:150]
        ) from error
    if not isinstance(output, torch.Tensor) or output.shape != (2, spec.num_outputs):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UsageError(f"model {spec.name}", expected=f"outputs (N, {spec.num_outputs})", found=str(found))
