"""The formats that hold a whole network, of any batch size: reading them takes no class and no causalprune.

``pt2``: the program that ``torch.export`` traces, by ``torch.export.save``; PyTorch reads it. ``onnx``: the same
program in ONNX; ONNX Runtime reads it.
"""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.base.errors import MismatchError, UsageError
from causalprune.models.export.formats import Compare, ExportFormat, Networks, Tensors, difference, same_bits
from causalprune.models.modes import evaluation_mode

Program = torch.export.ExportedProgram

ONNX_TOLERANCE = 1e-4
"""Largest difference of an ONNX network's outputs from the checkpoint's, relative to the largest of these."""


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Program:
    """The operations of a network in evaluation mode, on the CPU, for any number of samples.

    Args:
        model: The network; left as it was, where it was.
        input_shape: Shape of one sample.

    Raises:
        UsageError: What it computes depends on the values of its inputs or on the batch size, or isn't PyTorch's.
    """
    twin = copy.deepcopy(model).cpu()
    # Two samples: a batch of one would be taken for a constant.
    example = torch.zeros(2, *input_shape)
    try:
        with evaluation_mode(twin), _silence():
            program = torch.export.export(twin, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:
        raise UsageError(
            "`format=pt2` or onnx",
            expected="a network that torch.export can trace with any batch size",
            found=f"{error}".strip().splitlines()[0][:150],
            remedy="export its weights: `format=torch`, safetensors or csr",
        ) from error
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            # Paths and lines of the code that built it say nothing elsewhere.
            node.meta.pop("stack_trace", None)
    return program


def pt2_bytes(program: Program) -> bytes:
    """A program as ``torch.export.save`` writes it; ``torch.export.load(path).module()`` is the network."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def onnx_bytes(program: Program) -> bytes:
    """A program as ONNX, its input ``inputs`` (batch, …) and its output ``outputs``.

    Raises:
        UsageError: A package that PyTorch's exporter needs is missing, or an operation has no counterpart in ONNX.
    """
    try:
        import onnx  # noqa: F401 -- a clear message before the exporter starts
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "`format=onnx`", expected="onnx and onnxscript", found=str(error), remedy="pip install 'causalprune[onnx]'"
        ) from error
    try:
        with _silence():
            found: Any = torch.onnx.export(
                program, input_names=["inputs"], output_names=["outputs"], dynamo=True, verbose=False
            )
    except torch.onnx.OnnxExporterError as error:
        raise UsageError(
            "`format=onnx`",
            expected="a network of operations that ONNX has",
            found=f"{error}".strip().splitlines()[0][:150],
            remedy="take `format=pt2`",
        ) from error
    return bytes(found.model_proto.SerializeToString())


@contextmanager
def _silence() -> Iterator[None]:
    """PyTorch writes pages on stderr about what it can't trace; its exception says it in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _outputs_of_pt2(path: Path, inputs: torch.Tensor) -> torch.Tensor:
    """What the network in a ``pt2`` file makes of inputs, (batch, …)."""
    with path.open("rb") as file, torch.no_grad():
        outputs: torch.Tensor = torch.export.load(file).module()(inputs)
    return outputs


def _outputs_of_onnx(path: Path, inputs: torch.Tensor) -> torch.Tensor | None:
    """What ONNX Runtime makes of inputs, (batch, …), with the network in a file; None where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"inputs": inputs.numpy()})[0])


@dataclass(frozen=True)
class _Pt2(ExportFormat):
    def encode(self, networks: Networks, keep: Tensors, *, masks: bool = False) -> tuple[bytes, Compare]:
        """Encode the program; PyTorch must compute the same bits with it."""
        del keep, masks

        def compare(path: Path) -> tuple[str, float]:
            found = _outputs_of_pt2(path, networks.inputs())
            if not same_bits(networks.outputs(networks.exported), found):
                raise MismatchError(
                    "`format=pt2`, read back", expected="the network's outputs, bit for bit", found="others"
                )
            return "bits", difference(networks.outputs(networks.checkpoint), found)

        return pt2_bytes(trace(networks.exported, networks.input_shape)), compare


@dataclass(frozen=True)
class _Onnx(ExportFormat):
    def encode(self, networks: Networks, keep: Tensors, *, masks: bool = False) -> tuple[bytes, Compare]:
        """Encode the program; ONNX Runtime, where it is installed, must compute the same up to rounding."""
        del keep, masks

        def compare(path: Path) -> tuple[str, float]:
            found = _outputs_of_onnx(path, networks.inputs())
            if found is None:
                return "not", 0.0
            expected = networks.outputs(networks.checkpoint)
            off, largest = difference(expected, found), float(expected.abs().max())
            # Relative however small the outputs are; all zeros must stay zeros.
            if not off <= ONNX_TOLERANCE * largest:
                raise MismatchError(
                    "`format=onnx`, read back",
                    expected=f"the network's outputs, the largest of them {largest:.3g}",
                    found=f"a difference of {off:.3g}",
                )
            return "outputs", off

        return onnx_bytes(trace(networks.exported, networks.input_shape)), compare


PT2 = _Pt2(".pt2")
ONNX = _Onnx(".onnx")
