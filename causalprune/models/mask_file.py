"""Files of a mask, or of a masked state dict: safetensors with what they are in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from causalprune.base.errors import CorruptError, MismatchError, storage_errors
from causalprune.base.files import require_file, write_atomic
from causalprune.base.paths import utf8_path
from causalprune.models.checkpoint import load_tensors
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex

_KEY = "causalprune-tensors"
"""Not that of checkpoints, which are for the commands."""


def save_mask(mask: Mask, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a mask: a bool tensor per prunable weight, by its name, True to keep.

    Args:
        mask: The mask.
        path: The file; replaced if it exists.
        provenance: What it was made of, JSON-ready.

    Raises:
        StorageError: The file system refused; an existing file is unchanged.
    """
    header = {"kind": "mask", "parameters": mask.index.to_json(), **(provenance or {})}
    save_tensors(mask.tensors(), path, header)


def load_mask(path: Path) -> Mask:
    """Read what :func:`save_mask` wrote.

    Raises:
        DataError: No file, or an empty one.
        CorruptError: Another file, or a damaged one.
    """
    require_file(path, expected="a mask")
    tensors = load_tensors(path)
    header = read_header(path)
    if header.get("kind") != "mask":
        raise CorruptError(f"{path}", expected="a mask, as Mask.save writes it", found="another safetensors file")
    index = ParameterIndex.from_json(header.get("parameters"), f"{path}")
    try:
        return Mask.from_tensors(index, tensors)
    except MismatchError as error:
        raise CorruptError(f"{path}", expected="a bool tensor per parameter of its header", found="others") from error


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, header: Mapping[str, Any]) -> None:
    """Write tensors atomically, each with memory of its own, as ``load_state_dict`` and safetensors take them.

    Args:
        tensors: By name.
        path: The file; replaced if it exists.
        header: What they are, JSON-ready; equal headers and tensors give equal bytes.

    Raises:
        StorageError: The file system refused; an existing file is unchanged.
    """
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(own, metadata={_KEY: json.dumps(header, sort_keys=True)}))


def read_header(path: Path) -> dict[str, Any]:
    """What :func:`save_tensors` wrote into the header; empty for a file of another program."""
    from safetensors import SafetensorError, safe_open

    try:
        with storage_errors(path, "read"), utf8_path(path) as name, safe_open(name, framework="numpy") as file:
            value = json.loads((file.metadata() or {}).get(_KEY, "{}"))
    except (SafetensorError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
