"""The bytes of a file in a format, and the comparison of the file, once written, with the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from causalprune.errors import MismatchError
from causalprune.export.formats import Tensors, read_tensors, safetensors_bytes, to_csr, torch_bytes, with_mask_names
from causalprune.export.networks import onnx_bytes, outputs_of_onnx, outputs_of_pt2, pt2_bytes, trace

ONNX_TOLERANCE = 1e-4
"""Largest difference of an ONNX network's outputs from the checkpoint's, relative to the largest of these."""

_PROBES = 5

Compare = Callable[[Path], tuple[str, float]]
"""Reads a file and compares it: ``bits``, ``outputs`` or ``not``, and the largest difference of outputs from those of
the checkpoint's network. Raises MismatchError where the file holds something else."""


@dataclass(frozen=True)
class Networks:
    """What is exported of what, both in evaluation mode on the CPU.

    Attributes:
        checkpoint: The checkpoint's network.
        exported: The same, or the compact one.
        input_shape: Shape of one sample.
    """

    checkpoint: nn.Module
    exported: nn.Module
    input_shape: tuple[int, ...]

    def inputs(self) -> torch.Tensor:
        """Random inputs, the same at each call."""
        return torch.randn(_PROBES, *self.input_shape, generator=torch.Generator().manual_seed(0))

    def outputs(self, model: nn.Module) -> torch.Tensor:
        """What one of the two makes of them."""
        with torch.no_grad():
            found: torch.Tensor = model(self.inputs())
        return found


def encode(format: str, networks: Networks, keep: Tensors, *, masks: bool = False) -> tuple[bytes, Compare]:
    """Encode a network, or its tensors.

    Args:
        format: One of ``causalprune.config.export.FORMATS``.
        networks: What to export.
        keep: Bool tensors by parameter name of ``exported``, True for unpruned.
        masks: Whether the masks are kept, by the names of ``torch.nn.utils.prune``.

    Raises:
        UsageError: The format can't hold this network, or a package is missing.
    """
    if format in ("pt2", "onnx"):
        program = trace(networks.exported, networks.input_shape)
        if format == "pt2":
            return pt2_bytes(program), partial(_compare_pt2, networks)
        return onnx_bytes(program), partial(_compare_onnx, networks)
    weights = networks.exported.state_dict()
    named = with_mask_names(weights, keep) if masks else weights
    if format == "csr":
        data = safetensors_bytes(to_csr(weights, keep))
    else:
        data = torch_bytes(named) if format == "torch" else safetensors_bytes(named)
    return data, partial(_compare_tensors, networks, format, named)


def _compare_tensors(
    networks: Networks, format: str, named: Mapping[str, torch.Tensor], path: Path
) -> tuple[str, float]:
    read = read_tensors(path, format)
    if read.keys() != named.keys() or not all(_same_bits(tensor, read[name]) for name, tensor in named.items()):
        raise MismatchError(
            f"--format {format}, read back", expected="the bits of the network's tensors", found="others"
        )
    if networks.exported is networks.checkpoint:
        return "bits", 0.0
    return "bits", _difference(networks.outputs(networks.checkpoint), networks.outputs(networks.exported))


def _compare_pt2(networks: Networks, path: Path) -> tuple[str, float]:
    found = outputs_of_pt2(path, networks.inputs())
    if not _same_bits(networks.outputs(networks.exported), found):
        raise MismatchError("--format pt2, read back", expected="the network's outputs, bit for bit", found="others")
    return "bits", _difference(networks.outputs(networks.checkpoint), found)


def _compare_onnx(networks: Networks, path: Path) -> tuple[str, float]:
    found = outputs_of_onnx(path, networks.inputs())
    if found is None:
        return "not", 0.0
    expected = networks.outputs(networks.checkpoint)
    difference, largest = _difference(expected, found), float(expected.abs().max())
    # Relative however small the outputs are; all zeros must stay zeros.
    if not difference <= ONNX_TOLERANCE * largest:
        raise MismatchError(
            "--format onnx, read back",
            expected=f"the network's outputs, the largest of them {largest:.3g}",
            found=f"a difference of {difference:.3g}",
        )
    return "outputs", difference


def _difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return 0.0 if _same_bits(first, second) else float((first - second).abs().max())


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    same = first.dtype == second.dtype and first.shape == second.shape
    return same and first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes()
