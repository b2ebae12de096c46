"""From the name of a model to the network, and the check of its input and output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from causalprune.base.compute.inputs import example_inputs, network_outputs
from causalprune.base.compute.shapes import InputShape, OneInput, SeveralInputs, Tokens, shape_text
from causalprune.base.errors import CorruptError, MismatchError, UsageError, translate
from causalprune.base.registry import call_with
from causalprune.base.specs import ModelSpec
from causalprune.base.user_code import import_user_module
from causalprune.models.extra_state import carry_extra_state
from causalprune.models.modes import evaluation_mode
from causalprune.models.names import MODELS, check_model_name, is_own
from causalprune.models.wrappers import uncompiled


def build_model(spec: ModelSpec, *, seed: int, trust_code: bool = True) -> nn.Module:
    """Build a network whose weights depend on ``seed`` alone; the global random state isn't changed.

    Args:
        spec: Its name and the sizes of its input and output.
        seed: Seed of the initial weights.
        trust_code: Whether a ``package.module:factory`` may run.

    Raises:
        UsageError: The model is unknown, or can't take this input.
        CorruptError: The model is user code, and ``trust_code`` is False.
    """
    factory = _factory(spec.name, trust_code=trust_code)
    if spec.hidden and "hidden" not in signature(factory).parameters:
        raise UsageError("`hidden`", expected="`model=mlp`", found=spec.name)
    if isinstance(spec.input_shape, Tokens) and not is_own(spec.name) and not _takes_tokens(factory):
        found, remedy = f"{spec.input_shape}", "use `model=tinygpt` for texts"
        raise UsageError(f"model {spec.name}", expected="images or features", found=found, remedy=remedy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(factory, spec)
        _check_output(model, spec)
    return model


def rebuild_model(
    spec: ModelSpec, weights: Mapping[str, torch.Tensor], source: str, *, trust_code: bool = False
) -> nn.Module:
    """Build the network that a file describes, without loading the file's weights into it.

    A built-in model is first built without storage, so that memory is only allocated for sizes that match the weights.

    Args:
        spec: The model, according to the file.
        weights: The file's weights.
        source: The file, for the error.
        trust_code: Whether a ``package.module:factory`` may run.

    Raises:
        MismatchError: The file's weights aren't those of this model.
        CorruptError: The model is unknown or can't be built, or is user code and ``trust_code`` is False.
    """
    name = spec.name
    if check_model_name(name) or not name:
        raise CorruptError(source, expected="a known model", found=f"{name!r}"[:80])
    if not is_own(name):
        # Imported outside the context: constants of its module must not become tensors without storage.
        factory = _factory(name, trust_code=False)
        try:
            with torch.device("meta"):
                shapes = {key: value.shape for key, value in _build(factory, spec).state_dict().items()}
        except (UsageError, RuntimeError, OverflowError, ValueError) as error:
            found = f"{error}".splitlines()[0][:150]
            raise translate(error) or CorruptError(
                source, expected=f"a model {name} that can be built", found=found
            ) from error
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
        built_in: Callable[..., Any] = MODELS.load(name)
        return built_in
    if family == "torchvision":
        from causalprune.models.torchvision_models import torchvision_model

        return partial(torchvision_model, rest)
    return partial(_build_user_model, name, trust_code)


def _build(factory: Callable[..., Any], spec: ModelSpec) -> nn.Module:
    hidden = {"hidden": spec.hidden} if spec.hidden else {}
    if isinstance(spec.input_shape, SeveralInputs) and not is_own(spec.name):
        raise UsageError(
            f"model {spec.name}",
            expected="one input",
            found=f"{spec.input_shape}",
            remedy="pass `model=package.module:factory`, a network of yours that takes them",
        )
    known = {
        "input_shape": _by_input(spec.input_shape, _sizes),
        "num_outputs": spec.num_outputs,
        "vocabulary": _by_input(spec.input_shape, lambda one: one.vocabulary if isinstance(one, Tokens) else 0),
        "task": spec.meaning,
    }
    model: nn.Module = call_with(factory, **known, **hidden)
    return model


def _by_input(shape: InputShape, function: Callable[[OneInput], Any]) -> Any:
    """What a function says about each input; of several by their names, or in their order."""
    return shape.arranged(map(function, shape.parts)) if isinstance(shape, SeveralInputs) else function(shape)


def _sizes(shape: OneInput) -> tuple[int, ...]:
    return shape if isinstance(shape, tuple) else shape.shape


def _takes_tokens(factory: Callable[..., Any]) -> bool:
    return "vocabulary" in signature(factory).parameters


def _build_user_model(name: str, trust_code: bool, **known: Any) -> nn.Module:
    if not trust_code:
        raise CorruptError(
            f"checkpoint that names {name}",
            expected="a built-in model, or permission to run code",
            found="code of its own",
            remedy="pass `trust_code` if you trust where the checkpoint comes from",
        )
    module_name, _, attribute = name.partition(":")
    with _user_errors(name, "package.module:factory that imports"):
        factory = getattr(import_user_module(module_name), attribute)
    if not callable(factory):
        raise UsageError(f"`model` {name}", expected="something callable", found=type(factory).__name__)
    with _user_errors(name, "a factory that returns a network"):
        model = call_with(factory, **known)
    if not isinstance(model, nn.Module):
        raise UsageError(f"`model` {name}", expected="a torch.nn.Module", found=type(model).__name__)
    # A wrapper would rename every tensor; training compiles the network itself if it is told to.
    model = uncompiled(model)
    carry_extra_state(model, f"`model` {name}")
    return model


@contextmanager
def _user_errors(name: str, expected: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__}: {error}"
        raise translate(error) or UsageError(f"`model` {name}", expected=expected, found=found) from error


def _check_output(model: nn.Module, spec: ModelSpec) -> None:
    """Run the model once on zeros, so that a wrong size is noticed before training."""
    try:
        with evaluation_mode(model), torch.no_grad():
            output = network_outputs(model, example_inputs(spec.input_shape, 2))
    except Exception as error:
        tokens = isinstance(spec.input_shape, Tokens)
        raise translate(error) or UsageError(
            f"model {spec.name}",
            expected=f"a network that takes {shape_text(spec.input_shape)}",
            found=f"{error}"[:150],
            remedy="pass `integers=quantities` if they aren't looked up, but standardized" if tokens else "",
        ) from error
    if not isinstance(output, torch.Tensor) or output.shape != (2, *spec.outputs):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        expected = f"outputs (N, {', '.join(map(str, spec.outputs))})"
        raise UsageError(f"model {spec.name}", expected=expected, found=str(found))


def image_shape(model: str, input_shape: tuple[int, ...], *, smallest: int = 1) -> tuple[int, int, int]:
    """Check that samples are images, and return their channels, height and width.

    Args:
        model: Name of the model that needs images, for the error.
        input_shape: Shape of one sample.
        smallest: The smallest height and width that the model can take.

    Raises:
        UsageError: The samples aren't images, or are too small.
    """
    if len(input_shape) != 3:
        found = f"{input_shape[0]} features"
        raise UsageError(f"model {model}", expected="images", found=found, remedy="use `model=mlp` for tables")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        expected = f"images of at least {smallest}×{smallest}"
        raise UsageError(f"model {model}", expected=expected, found=f"{height}×{width}")
    return channels, height, width
