"""Files of a mask, or of a masked state dict: safetensors with what they are in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.base.files import require_file, write_atomic
from causalprune.models.parameters import ParameterIndex
from causalprune.models.tensor_file import encode_tensors, load_tensors, read_metadata

if TYPE_CHECKING:
    import torch

    from causalprune.models.mask import Mask

_KEY = "causalprune-tensors"
"""Not that of checkpoints, which are for the commands."""

MASKED_STATE_DICT = "masked state dict"
"""The ``kind`` in the header of a state dict whose pruned weights are 0, which isn't a checkpoint."""


def save_mask(mask: Mask, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a mask: a bool tensor per prunable weight, by its name, True to keep.

    Args:
        mask: The mask.
        path: The file; replaced if it exists.
        provenance: What it was made of, JSON-ready.

    Raises:
        StorageError: The file system refused; an existing file is unchanged.
    """
    write_atomic(path, encode_mask(mask, provenance))


def encode_mask(mask: Mask, provenance: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of the file that :func:`save_mask` writes."""
    header = {"kind": "mask", "parameters": mask.index.to_json(), **(provenance or {})}
    return encode_tensors(mask.tensors(), _KEY, header)


def load_mask(path: Path) -> Mask:
    """Read what :func:`save_mask` wrote.

    Raises:
        DataError: No file, or an empty one.
        CorruptError: Another file, or a damaged one.
    """
    from causalprune.models.mask import Mask

    require_file(path, expected="a mask")
    tensors = load_tensors(path)
    if not is_mask(path):
        raise CorruptError(f"{path}", expected="a mask, as Mask.save writes it", found="another safetensors file")
    index = ParameterIndex.from_json(read_header(path).get("parameters"), f"{path}")
    try:
        return Mask.from_tensors(index, tensors)
    except MismatchError as error:
        raise CorruptError(f"{path}", expected="a bool tensor per parameter of its header", found="others") from error


def is_mask(path: Path) -> bool:
    """Whether :func:`save_mask` wrote a file.

    Raises:
        StorageError: The file system refused.
    """
    return read_header(path).get("kind") == "mask"


def encode_state_dict(tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> bytes:
    """The bytes of a file of tensors that isn't a checkpoint; see :func:`encode_tensors`."""
    return encode_tensors(tensors, _KEY, header)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a mask, or of a masked state dict; empty for any other file.

    Raises:
        StorageError: The file system refused.
    """
    try:
        value = json.loads(read_metadata(path).get(_KEY, "{}"))
    except (CorruptError, DataError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
