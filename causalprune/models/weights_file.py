"""Read the state dicts that a file of weights may hold, whoever wrote it; no code in it runs."""

from __future__ import annotations

import pickle
import re
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from causalprune.base.errors import CorruptError, DataError, UsageError, storage_errors, translate
from causalprune.base.files import require_file
from causalprune.base.paths import mask_path
from causalprune.models.checkpoint import load_masks
from causalprune.models.names import TORCH_SUFFIXES
from causalprune.models.tensor_file import load_tensors

KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
"""Where the state dict is within a larger checkpoint, in the order in which they are tried."""

_DEPTH = 3
"""How deep in a checkpoint a state dict may be."""


def read_state_dicts(path: Path, parameter: str = "init_from", *, alone: bool = False) -> list[Mapping[str, Any]]:
    """The mappings in a file that may be a network's state dict, the outermost first.

    Args:
        path: A ``.safetensors`` file, or one of ``torch.save``, from which tensors are read, but never code.
        parameter: What names the file, for messages.
        alone: Whether the file that lies beside a checkpoint, with its mask, may be missing.

    Returns:
        At least one mapping of names, some of whose values are tensors. That of a checkpoint has its mask, too.

    Raises:
        UsageError: The file has another suffix.
        DataError: The file is missing or empty, or the mask of a checkpoint is missing.
        CorruptError: The file holds no state dict.
        MismatchError: The mask beside a checkpoint is another's.
    """
    name = path.name.lower()
    if name.endswith(".safetensors"):
        tensors = load_tensors(path)
        return [tensors if alone and not mask_path(path).exists() else tensors | load_masks(path)]
    if not name.endswith(TORCH_SUFFIXES):
        expected = f"a .safetensors file, or one of torch.save ({', '.join(TORCH_SUFFIXES)})"
        raise UsageError(f"`{parameter}`", expected=expected, found=f"{path}")
    if require_file(path, expected="a file of weights").st_size == 0:
        raise DataError(f"{path}", expected="a file of weights", found="an empty file")
    try:
        with storage_errors(path, "read"), warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            # What PyTorch plans for quantized tensors is of no use here.
            warnings.simplefilter("ignore")
            value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        raise translate(error) or CorruptError(
            f"{path}",
            expected="a file of tensors (nothing else is unpickled)",
            found=_reason(error),
            remedy="write it with torch.save(model.state_dict(), …)",
        ) from error
    found = list(_state_dicts(value))
    if not found:
        kind = type(value).__name__
        if isinstance(value, Mapping):
            kind += " of " + (", ".join(f"{key}"[:40] for key in list(value)[:5]) or "nothing")
        raise CorruptError(f"{path}", expected="a state dict, perhaps as one of " + ", ".join(KEYS), found=kind)
    return found


def _reason(error: Exception) -> str:
    """Why nothing was read: what only code could restore, if PyTorch names that far behind its advice."""
    text = str(error) or type(error).__name__
    named = re.search(r"GLOBAL (\S+)", text)
    return f"a {named[1]}" if named else text.splitlines()[0][:100]


def _state_dicts(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        return
    if all(isinstance(name, str) for name in value) and any(isinstance(t, torch.Tensor) for t in value.values()):
        yield value
    if depth < _DEPTH:
        for key in KEYS:
            yield from _state_dicts(value.get(key), depth + 1)
