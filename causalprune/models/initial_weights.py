"""Start from existing weights."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import CorruptError, DataError, MismatchError, UsageError, storage_errors
from causalprune.models.checkpoint import PREFIXES, load_tensors

_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
"""Prefixes that DataParallel and torch.compile add to every name."""


def load_initial_weights(model: nn.Module, path: Path, *, key_map: Sequence[str] = ()) -> None:
    """Load a state dict into a model.

    Prefixes of DataParallel and torch.compile are removed; ``{"state_dict": …}`` and ``{"model": …}`` are unwrapped.

    Args:
        model: Changed in place.
        path: A ``.safetensors`` file, or a ``.pt`` or ``.pth`` file, from which tensors are read, but never code.
        key_map: Rules ``OLD=NEW`` for the beginnings of names; the first matching rule is used.

    Raises:
        DataError: The file is missing.
        CorruptError: The file holds no weights.
        UsageError: The file has another suffix.
        MismatchError: The weights belong to another model.
    """
    tensors: dict[str, torch.Tensor] = {}
    for old, tensor in _read(path).items():
        name = _renamed(old, key_map)
        if name in tensors:
            raise MismatchError(f"{path}", expected="distinct names without their prefixes", found=f"{name} twice")
        tensors[name] = tensor
    own = model.state_dict()
    for relation, odd in (("missing", own.keys() - tensors.keys()), ("unexpected", tensors.keys() - own.keys())):
        if odd:
            shown = ", ".join(sorted(odd)[:3]) + (", …" if len(odd) > 3 else "")
            raise MismatchError(
                f"{path}",
                expected=f"weights of this {type(model).__name__}",
                found=f"{len(odd)} {relation}: {shown}",
                remedy="rename them with `key_map=OLD=NEW`, or choose another `model`",
            )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise MismatchError(
                f"{name} in {path}", expected=f"shape {tuple(own[name].shape)}", found=f"{tuple(tensor.shape)}"
            )
    model.load_state_dict(tensors)


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return {n: t for n, t in load_tensors(path).items() if not n.startswith(PREFIXES)}
    if path.suffix not in (".pt", ".pth"):
        raise UsageError("`init_from`", expected="a .safetensors, .pt or .pth file", found=f"{path}")
    if not path.is_file():
        raise DataError(f"{path}", expected="a file of weights", found="nothing")
    try:
        with storage_errors(path, "read"):
            value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        found = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise CorruptError(f"{path}", expected="a file of tensors (nothing else is unpickled)", found=found) from error
    for key in ("state_dict", "model"):
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
    if not isinstance(value, Mapping) or not value or not all(_is_weight(*item) for item in value.items()):
        raise CorruptError(f"{path}", expected="a state dict", found=type(value).__name__)
    return value


def _is_weight(name: object, tensor: object) -> bool:
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        return False
    return tensor.layout is torch.strided and not tensor.is_complex() and not tensor.is_meta


def _renamed(name: str, key_map: Sequence[str]) -> str:
    for rule in key_map:
        old, _, new = rule.partition("=")
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    return _WRAPPERS.sub("", name)
