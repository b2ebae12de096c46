"""From the name of a model to the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from causalprune.errors import CorruptError, MismatchError, UsageError
from causalprune.inference import evaluation_mode
from causalprune.models.alexnet import AlexNet
from causalprune.models.lenet import LeNet
from causalprune.models.mlp import DEFAULT_HIDDEN, MLP, mlpnet
from causalprune.models.names import check_model_name
from causalprune.models.resnet20 import ResNet20
from causalprune.models.torchvision_models import small_image_model, torchvision_model
from causalprune.models.user_code import build_user_model
from causalprune.specs import ModelSpec


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
        raise UsageError("--model", expected=expected or "a name", found=repr(spec.name))
    if spec.hidden and spec.name != "mlp":
        raise UsageError("--hidden", expected="--model mlp", found=spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(spec, trust_code=trust_code)
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
        try:
            with torch.device("meta"):
                shapes = {key: value.shape for key, value in _build(spec, trust_code=False).state_dict().items()}
        except (UsageError, RuntimeError, OverflowError, ValueError) as error:
            found = f"{error}".splitlines()[0][:150]
            raise CorruptError(source, expected=f"a model {name} that can be built", found=found) from error
        if shapes != {key: value.shape for key, value in weights.items()}:
            raise MismatchError(
                source, expected=f"the weights of {name}", found="others", remedy="use the file that a stage wrote"
            )
        with torch.random.fork_rng(devices=[]):
            return _build(spec, trust_code=False)
    return build_model(spec, seed=0, trust_code=trust_code)


def _build(spec: ModelSpec, *, trust_code: bool) -> nn.Module:
    shape, outputs = spec.input_shape, spec.num_outputs
    if spec.name == "mlp":
        return MLP(shape, outputs, spec.hidden or DEFAULT_HIDDEN)
    if spec.name == "mlpnet":
        return mlpnet(shape, outputs)
    family, colon, rest = spec.name.partition(":")
    if colon and family != "torchvision":
        return build_user_model(spec.name, shape, outputs, trust_code=trust_code)
    if len(shape) != 3:
        found = f"{shape[0]} features"
        raise UsageError(f"model {spec.name}", expected="images", found=found, remedy="use --model mlp for tables")
    if colon:
        return torchvision_model(rest, shape, outputs)
    own = {"lenet": LeNet, "alexnet": AlexNet, "resnet20": ResNet20}
    return own[spec.name](shape, outputs) if spec.name in own else small_image_model(spec.name, shape, outputs)


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
