"""Files of a model's weights that load without causalprune.

``torch``: a state dict by ``torch.save``. ``safetensors``: the same. ``csr``: a safetensors file in which the matrix of
a pruned weight ``NAME``, (shape[0], the rest), is ``NAME.crow_indices``, ``NAME.col_indices`` (int32), ``NAME.values``
and ``NAME.shape`` (int64, the weight's own), as ``torch.sparse_csr_tensor`` takes them; other tensors are dense.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch

Tensors = Mapping[str, torch.Tensor]

CSR_PARTS = ("crow_indices", "col_indices", "values", "shape")


def with_mask_names(weights: Tensors, keep: Tensors) -> dict[str, torch.Tensor]:
    """A state dict as ``torch.nn.utils.prune`` has it: ``NAME_orig`` and ``NAME_mask`` in place of ``NAME``.

    Args:
        weights: State dict with pruned weights at zero.
        keep: Bool tensors by parameter name.
    """
    named: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if name in keep:
            named[f"{name}_orig"], named[f"{name}_mask"] = tensor, keep[name].to(tensor.dtype)
        else:
            named[name] = tensor
    return named


def torch_bytes(weights: Tensors) -> bytes:
    """A state dict as ``torch.save`` writes it; ``torch.load(path, weights_only=True)`` reads it."""
    buffer = io.BytesIO()
    torch.save(dict(weights), buffer)
    return buffer.getvalue()


def safetensors_bytes(weights: Tensors) -> bytes:
    """A state dict as safetensors; ``safetensors.torch.load_file(path)`` reads it."""
    from safetensors.torch import save

    # Each a copy of its own: safetensors has no place for tied weights.
    copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
    return save(copies, {"format": "pt"})


def to_csr(weights: Tensors, keep: Tensors) -> dict[str, torch.Tensor]:
    """The tensors of the ``csr`` format; a weight is sparse where that takes fewer bytes.

    Args:
        weights: State dict.
        keep: Bool tensors by parameter name; kept zeros are stored, too.
    """
    parts: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if name not in keep:
            parts[name] = tensor
            continue
        mask = keep[name].reshape(tensor.shape[0], -1)
        counts = mask.sum(1)
        indices = mask.nonzero()[:, 1].to(torch.int32)
        rows = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)
        found = (rows, indices, tensor.reshape(mask.shape)[mask], torch.tensor(tensor.shape))
        if sum(part.nbytes for part in found) < tensor.nbytes:
            parts |= {f"{name}.{part}": value for part, value in zip(CSR_PARTS, found, strict=True)}
        else:
            parts[name] = tensor
    return parts


def from_csr(parts: Tensors) -> dict[str, torch.Tensor]:
    """The state dict of :func:`to_csr`'s tensors."""
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in parts.items():
        stem, _, part = name.rpartition(".")
        if f"{stem}.crow_indices" not in parts or part not in CSR_PARTS:
            weights[name] = tensor
        elif part == "shape":
            rows, indices, values = (parts[f"{stem}.{p}"] for p in CSR_PARTS[:3])
            shape = tensor.tolist()
            dense = values.new_zeros(shape[0], max(1, int(torch.tensor(shape[1:]).prod())))
            dense[torch.repeat_interleave(torch.arange(shape[0]), rows.diff()), indices.long()] = values
            weights[stem] = dense.reshape(shape)
    return weights


def read_tensors(path: Path, format: str) -> dict[str, torch.Tensor]:
    """The state dict in a file of the format ``torch``, ``safetensors`` or ``csr``."""
    if format == "torch":
        found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
        return found
    from safetensors.torch import load_file

    return load_file(path) if format == "safetensors" else from_csr(load_file(path))
