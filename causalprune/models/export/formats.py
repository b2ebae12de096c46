"""What an export format is, and the formats of a model's weights, which load without causalprune.

``torch``: a state dict, written by ``torch.save``. ``safetensors``: the same in a safetensors file. ``csr``: a
safetensors file in which a pruned weight ``NAME``, as a matrix (shape[0], the rest), is stored as
``NAME.crow_indices``, ``NAME.col_indices`` (int32), ``NAME.values`` and ``NAME.shape`` (int64, the shape of the weight
itself), as ``torch.sparse_csr_tensor`` takes them; all other tensors are dense.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from causalprune.base.compute.inputs import Inputs, example_inputs, network_outputs
from causalprune.base.compute.shapes import InputShape
from causalprune.base.errors import MismatchError
from causalprune.base.paths import utf8_path
from causalprune.models.extra_state import decoded, encoded, is_extra_state

Tensors = Mapping[str, torch.Tensor]

CSR_PARTS = ("crow_indices", "col_indices", "values", "shape")

_PROBES = 5

Compare = Callable[[Path], tuple[str, float]]
"""Reads a file and compares it with the network: returns how (``bits``, ``outputs`` or ``not``), and the largest
difference between its outputs and those of the checkpoint's network. Raises MismatchError if the file differs."""


@dataclass(frozen=True)
class Networks:
    """The network of a checkpoint and the network to export, both in evaluation mode on the CPU.

    Attributes:
        checkpoint: The checkpoint's network.
        exported: The same network, or its compact copy.
        input_shape: Shape of one sample.
        samples: Inputs to compare them on; random ones by default.
    """

    checkpoint: nn.Module
    exported: nn.Module
    input_shape: InputShape
    samples: Inputs | None = None

    def inputs(self) -> Inputs:
        """The inputs to compare the networks on, the same in every call."""
        if self.samples is not None:
            return self.samples
        return example_inputs(self.input_shape, _PROBES, random=True)

    def outputs(self, model: nn.Module) -> torch.Tensor:
        """The outputs of one of the networks for :meth:`inputs`."""
        with torch.no_grad():
            found: torch.Tensor = network_outputs(model, self.inputs())
        return found


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file for a network.

    Attributes:
        suffix: Suffix of the file names.
        encode: Takes the networks, bool tensors by parameter name of the exported one (True means keep), and whether
            to store the masks. Returns the bytes of the file, and how to compare the written file with the network.
            Raises UsageError if the format can't hold this network, or a package is missing.
        holds_masks: Whether it can store the masks, under the names of ``torch.nn.utils.prune``.
    """

    suffix: str
    encode: Callable[[Networks, Tensors, bool], tuple[bytes, Compare]]
    holds_masks: bool = False


def weights_format(
    suffix: str, write: Callable[[Tensors, Tensors], bytes], read: Callable[[Path], Tensors], holds_masks: bool = False
) -> ExportFormat:
    """Weights by name, which must read back bit for bit.

    Args:
        suffix: Suffix of the file names.
        write: Takes a state dict, and bool tensors by parameter name that are True for kept weights.
        read: Returns the state dict.
        holds_masks: Whether the names of ``torch.nn.utils.prune`` may be used.
    """

    def encode(networks: Networks, keep: Tensors, masks: bool) -> tuple[bytes, Compare]:
        weights = networks.exported.state_dict()
        named = with_mask_names(weights, keep) if masks else weights

        def compare(path: Path) -> tuple[str, float]:
            found = read(path)
            if found.keys() != named.keys() or not all(same_bits(named[name], found[name]) for name in named):
                raise MismatchError(
                    f"a {suffix} file, read back", expected="the bits of the network's tensors", found="others"
                )
            return "bits", difference(networks.outputs(networks.checkpoint), networks.outputs(networks.exported))

        return write(named, keep), compare

    return ExportFormat(suffix, encode, holds_masks)


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference between the elements of two tensors; 0 for the same bits."""
    return 0.0 if same_bits(first, second) else float((first - second).abs().max())


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits."""
    same = first.dtype == second.dtype and first.shape == second.shape
    return same and first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes()


def with_mask_names(weights: Tensors, keep: Tensors) -> dict[str, torch.Tensor]:
    """A state dict with the names of ``torch.nn.utils.prune``: ``NAME_orig`` and ``NAME_mask`` in place of ``NAME``.

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


def saved_bytes(save: Callable[[Any, io.BytesIO], None], value: Any) -> bytes:
    """What a function such as ``torch.save`` writes."""
    buffer = io.BytesIO()
    save(value, buffer)
    return buffer.getvalue()


def safetensors_bytes(weights: Tensors) -> bytes:
    """A state dict as safetensors; ``safetensors.torch.load_file(path)`` reads it."""
    # Copies, because safetensors can't store tied weights.
    copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
    return save(copies, {"format": "pt"})


def to_csr(weights: Tensors, keep: Tensors) -> dict[str, torch.Tensor]:
    """The tensors of the ``csr`` format; a weight is stored sparse if that takes fewer bytes.

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


def _torch_bytes(weights: Tensors, _: Tensors) -> bytes:
    """A state dict as PyTorch would have saved it, with extra states as they were."""
    values = {name: decoded(value) if is_extra_state(name) else value for name, value in weights.items()}
    return saved_bytes(torch.save, values)


def _from_torch(path: Path) -> dict[str, torch.Tensor]:
    return {name: encoded(value, f"{name} in {path}") for name, value in torch.load(path, weights_only=True).items()}


TORCH = weights_format(".pt", _torch_bytes, _from_torch, holds_masks=True)


def _from_safetensors(path: Path) -> dict[str, torch.Tensor]:
    with utf8_path(path) as name:
        tensors: dict[str, torch.Tensor] = load_file(name)
    return tensors


SAFETENSORS = weights_format(".safetensors", lambda weights, _: safetensors_bytes(weights), _from_safetensors, True)
CSR = weights_format(
    ".csr.safetensors",
    lambda weights, keep: safetensors_bytes(to_csr(weights, keep)),
    lambda path: from_csr(_from_safetensors(path)),
)
