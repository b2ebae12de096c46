"""Safetensors files: read with errors of ours, encoded to equal bytes for equal content, told apart by their metadata.

Nothing is imported before it is needed, so that a header is read without PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.base.errors import CorruptError, DataError, storage_errors
from causalprune.base.files import require_file
from causalprune.base.paths import utf8_path

if TYPE_CHECKING:
    import torch


def encode_tensors(tensors: Mapping[str, torch.Tensor], key: str, header: Mapping[str, Any]) -> bytes:
    """The bytes of a file.

    Args:
        tensors: By name; tied ones are written under every name.
        key: What kind of file it is: the key of the header in the metadata.
        header: What they are, JSON-ready; equal headers and tensors give equal bytes.
    """
    from safetensors.torch import save

    # Each with memory of its own, as safetensors takes them.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    encoded: bytes = save(own, metadata={key: json.dumps(header, sort_keys=True)})
    return encoded


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        DataError: The file is missing or empty.
        CorruptError: The file is of another kind, its header contradicts its length, or it holds complex or packed
            numbers.
        StorageError: The file system refused.
    """
    from safetensors.torch import load_file

    with _reading(path), utf8_path(path) as name:
        tensors: dict[str, torch.Tensor] = load_file(name)
    for name, tensor in tensors.items():
        if tensor.is_complex() or str(tensor.dtype).endswith("_x2"):
            raise CorruptError(f"{name} in {path}", expected="real numbers", found=str(tensor.dtype))
    return tensors


def read_metadata(path: Path, *, remedy: str = "") -> dict[str, str]:
    """The metadata of a safetensors file, empty if it has none; raises as :func:`load_tensors` does.

    Args:
        path: The file.
        remedy: What to do if it is missing.
    """
    from safetensors import safe_open

    with _reading(path, remedy=remedy), utf8_path(path) as name, safe_open(name, framework="numpy") as file:
        return dict(file.metadata() or {})


@contextmanager
def _reading(path: Path, *, remedy: str = "") -> Iterator[None]:
    """Turn errors of safetensors, which checks a file before it allocates anything, into errors of causalprune."""
    from safetensors import SafetensorError

    if require_file(path, expected="a checkpoint", remedy=remedy).st_size == 0:
        raise DataError(f"{path}", expected="a checkpoint", found="an empty file", remedy=remedy)
    with storage_errors(path, "read"):
        try:
            yield
        except SafetensorError as error:
            if _is_pickled(path):
                raise CorruptError(
                    f"{path}",
                    expected="a checkpoint of causalprune (pickles are not read)",
                    found="a file of torch.save",
                    remedy="pretrain `init_from=FILE, epochs=0` makes a checkpoint of its weights, apply-mask "
                    "`weights=FILE` prunes them, and `torch.export` exports its network (docs/own-model.md)",
                ) from error
            expected = "a whole safetensors file (pickles are not read)"
            reason = str(error).removeprefix("Error while deserializing header: ")[:120]
            raise CorruptError(f"{path}", expected=expected, found=f"one that can't be read ({reason})") from error


def _is_pickled(path: Path) -> bool:
    """Whether a file begins as those of ``torch.save`` do, of whichever version, or as another pickle."""
    with path.open("rb") as file:
        head = file.read(8)
    # The length of a safetensors header ends in zeros.
    return head.startswith(b"PK\3\4") or (head[:1] == b"\x80" and any(head[4:]))


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of tensors on the CPU, whatever their order."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # A view as bytes works for every dtype, even bfloat16, which NumPy doesn't know.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
