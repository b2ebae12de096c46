"""Which parameters of a network are prunable: by the layers that hold them, or because a pattern names them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.weight_norm import WeightNorm

from causalprune.base.errors import UsageError
from causalprune.base.progress import logger
from causalprune.base.registry import did_you_mean
from causalprune.base.units import listed, percent
from causalprune.models.wrappers import named_modules, named_parameters

if TYPE_CHECKING:
    from causalprune.models.parameters import ParameterIndex

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, _ConvTransposeNd)
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class Prunable:
    """A parameter that can be pruned.

    Attributes:
        name: As in the network without wrappers.
        parameter: What the optimizer moves.
        layer: The module that computes with it.
        weight: The name of the weight within the layer, which is another one where it is computed.
        kind: ``layer``, ``attention``, ``recurrent`` or ``named``, see :class:`~.parameters.ParameterEntry`.
        filter_axis: The axis of its output units.
        always: Whether every version has found it prunable: Linear and Conv layers.
    """

    name: str
    parameter: nn.Parameter
    layer: nn.Module
    weight: str
    kind: str
    filter_axis: int = 0
    always: bool = False


def prunable_weights(model: nn.Module) -> tuple[list[Prunable], list[str]]:
    """The weights of the layers that multiply by a matrix, each as the parameter that the optimizer moves.

    These are Linear and Conv layers, the packed or separate projections of the inputs of ``nn.MultiheadAttention``,
    the matrices of LSTM, GRU and RNN layers and cells, and ``Conv1D`` of Hugging Face's GPT-2, whose weight is
    (in, out).

    Under ``torch.nn.utils.prune`` and spectral normalization that is the original weight: where it is zero, so is the
    weight that the layer computes from it. No other computed weight can be pruned: a row of zeros makes weight
    normalization divide by zero, and of an orthogonal matrix no single element is free.

    Returns:
        All of them, also of a layer that is there twice; and the names of the layers left out.
    """
    found: list[Prunable] = []
    left_out: list[str] = []
    for prefix, layer in named_modules(model):
        for weight, kind, axis in _weights_of(layer):
            if weight in layer._parameters and layer._parameters[weight] is None:
                # As the packed projection of an attention that has three separate ones.
                continue
            name = _source(layer, weight)
            if name is None:
                left_out.append(prefix or type(layer).__name__)
                continue
            full = f"{prefix}.{name}" if prefix else name
            always = isinstance(layer, _MATRICES)
            found.append(Prunable(full, layer.get_parameter(name), layer, weight, kind, axis, always))
    return found, list(dict.fromkeys(left_out))


def named_tensors(model: nn.Module, patterns: Iterable[str], taken: Collection[int]) -> list[Prunable]:
    """The parameters that patterns name, whatever computes with them: embeddings, bare parameters, biases.

    Args:
        model: The network.
        patterns: As in :mod:`fnmatch`, of names of parameters.
        taken: Ids of the parameters that are prunable anyway.

    Raises:
        UsageError: A pattern that matches nothing, or only what has no elements to prune one by one: scalars, complex
            numbers, and the parts of a weight that is computed.
    """
    parameters, chosen = named_parameters(model), dict[int, Prunable]()
    parts = _parts_of_computed(model)
    for pattern in patterns:
        names = [name for name in parameters if fnmatchcase(name, pattern)]
        if not names:
            hint = did_you_mean(pattern, parameters)
            others = [name for name, parameter in parameters.items() if id(parameter) not in taken]
            expected = f"a pattern that matches a parameter, such as {listed(others or list(parameters), 12)}{hint}"
            raise UsageError("`prune`", expected=expected, found=repr(pattern))
        fit = [name for name in names if _has_elements(parameters[name]) and name not in parts]
        if not fit:
            raise UsageError(
                "`prune`",
                expected="parameters of one dimension or more, of real numbers, that no layer computes a weight from",
                found=listed(names, 3),
            )
        for name in fit:
            if id(parameters[name]) not in taken:
                owner, _, own = name.rpartition(".")
                layer = model if not owner else dict(named_modules(model))[owner]
                chosen.setdefault(id(parameters[name]), Prunable(name, parameters[name], layer, own, "named"))
    return list(chosen.values())


@dataclass(frozen=True)
class NotPrunable:
    """The parameters of a network that aren't prunable.

    Attributes:
        kinds: For each kind its name, how many tensors it has, and the name of the first.
        share: Their share of all elements of all parameters.
        total: The number of these.
        matrices: Whether any of them is more than a vector.
    """

    kinds: tuple[tuple[str, int, str], ...]
    share: float
    total: int
    matrices: bool

    def __str__(self) -> str:
        parts = []
        for kind, count, first in self.kinds:
            such = "" if kind != "other tensor" else f" ({first})" if count == 1 else f" (such as {first})"
            parts.append(f"{count} {kind}{'s' if count > 1 else ''}{such}")
        return f"{listed(parts)}, {percent(self.share, 1)}% of {self.total:,} parameters"


def not_prunable(model: nn.Module, index: ParameterIndex) -> NotPrunable | None:
    """What of a network isn't prunable; None if all of it is.

    Args:
        model: The network.
        index: Its prunable parameters.
    """
    parameters = named_parameters(model)
    seen = {id(parameters[entry.name]) for entry in index}
    found: dict[str, list[tuple[str, nn.Parameter]]] = {kind: [] for kind in _KINDS}
    for name, (kind, parameter) in kinds_of_parameters(model).items():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            found[kind].append((name, parameter))
    rest = [parameter for tensors in found.values() for _, parameter in tensors]
    if not rest:
        return None
    count = sum(parameter.numel() for parameter in rest)
    kinds = tuple((kind, len(tensors), tensors[0][0]) for kind, tensors in found.items() if tensors)
    total = count + index.total
    return NotPrunable(kinds, count / max(1, total), total, any(parameter.dim() > 1 for parameter in rest))


def log_not_prunable(model: nn.Module, index: ParameterIndex, begin: str = "not prunable") -> None:
    """Say which parameters can't be pruned; a warning where they are more than vectors."""
    rest = not_prunable(model, index)
    if rest is not None:
        level = logging.WARNING if rest.matrices else logging.INFO
        logger.log(level, "%s: %s; `prune` names more", begin, rest)


def lacking_layers(index: ParameterIndex, model: nn.Module, source: str) -> list[str]:
    """What to say of layers that a list of an earlier version leaves out, though they can be pruned now.

    Args:
        index: The list, which goes with the network.
        model: The network.
        source: Where the list is from.
    """
    lacking = index.lacking(model)
    said = f"left alone, because {source} is of an earlier version and doesn't list them: {listed(lacking)}"
    return [f"{said}; `prune` names them"] if lacking else []


_KINDS = ("embedding", "other tensor", "normalization tensor", "bias vector")


def kinds_of_parameters(model: nn.Module) -> dict[str, tuple[str, nn.Parameter]]:
    """What each parameter is besides a weight that a layer multiplies by, and the parameter, by its name.

    ``embedding``, ``normalization tensor``, ``bias vector``, or ``other tensor``, as weights are.
    """
    return {
        f"{prefix}.{own}" if prefix else own: (_kind(module, own, parameter), parameter)
        for prefix, module in named_modules(model)
        for own, parameter in module._parameters.items()
        if parameter is not None
    }


def _kind(module: nn.Module, own: str, parameter: nn.Parameter) -> str:
    """What a parameter is that isn't prunable: one of :data:`_KINDS`."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    norms = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    if isinstance(module, norms) or ("norm" in type(module).__name__.lower() and parameter.dim() < 2):
        return "normalization tensor"
    return "bias vector" if "bias" in own else "other tensor"


def _weights_of(layer: nn.Module) -> Iterator[tuple[str, str, int]]:
    """The names of the matrices that a layer multiplies by, their kinds and filter axes."""
    if isinstance(layer, _MATRICES):
        yield "weight", "layer", 1 if isinstance(layer, _ConvTransposeNd) else 0
    elif _is_conv1d(layer):
        yield "weight", "layer", 1
    elif isinstance(layer, nn.MultiheadAttention):
        for name in _PROJECTIONS:
            yield name, "attention", 0
    elif isinstance(layer, nn.RNNBase):
        for name in layer._flat_weights_names:
            if name.startswith("weight"):
                yield name, "recurrent", 0
    elif isinstance(layer, nn.RNNCellBase):
        yield "weight_ih", "recurrent", 0
        yield "weight_hh", "recurrent", 0


def _is_conv1d(layer: nn.Module) -> bool:
    """Whether a layer is the ``Conv1D`` of Hugging Face's GPT-2: a linear layer whose weight is (in, out).

    By name and shape, because that library may not be installed, and takes seconds to import.
    """
    if all(kind.__name__ != "Conv1D" for kind in type(layer).__mro__):
        return False
    weight = getattr(layer, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.dim() == 2 and weight.shape[1] == getattr(layer, "nf", None)


def _source(layer: nn.Module, weight: str) -> str | None:
    """The name, within a layer, of the parameter whose zeros are those of a weight."""
    if weight in layer._parameters:
        return weight
    if f"{weight}_orig" in layer._parameters:
        return f"{weight}_orig"
    if parametrize.is_parametrized(layer, weight):
        steps = layer.parametrizations[weight]  # type: ignore[index]
        if all(isinstance(step, parametrizations._SpectralNorm) for step in steps):
            return f"parametrizations.{weight}.original"
    return None


def _parts_of_computed(model: nn.Module) -> set[str]:
    """The names of the parameters from which a layer computes a weight, as weight normalization does."""
    parts: set[str] = set()
    for prefix, module in named_modules(model):
        within = isinstance(module, parametrize.ParametrizationList) and not all(
            isinstance(step, parametrizations._SpectralNorm) for step in module
        )
        computed = [hook.name for hook in module._forward_pre_hooks.values() if isinstance(hook, WeightNorm)]
        halves = {f"{name}_{half}" for name in computed for half in ("g", "v")}
        for own in module._parameters:
            if within or own in halves:
                parts.add(f"{prefix}.{own}" if prefix else own)
    return parts


def _has_elements(parameter: nn.Parameter) -> bool:
    return (
        not isinstance(parameter, nn.UninitializedParameter)
        and parameter.is_floating_point()
        and parameter.dim() > 0
        and parameter.numel() > 0
    )
