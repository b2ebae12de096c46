"""Files of a whole network, of any batch size: who reads them needs no class, and nothing of causalprune.

``pt2``: the program that ``torch.export`` traces, by ``torch.export.save``; PyTorch reads it. ``onnx``: the same
program in ONNX; ONNX Runtime reads it.
"""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.errors import UsageError
from causalprune.models.modes import evaluation_mode

Program = torch.export.ExportedProgram


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
            "--format pt2 or onnx",
            expected="a network that torch.export can trace with any batch size",
            found=f"{error}".strip().splitlines()[0][:150],
            remedy="export its weights: --format torch, safetensors or csr",
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
            "--format onnx", expected="onnx and onnxscript", found=str(error), remedy="pip install 'causalprune[onnx]'"
        ) from error
    try:
        with _silence():
            found: Any = torch.onnx.export(
                program, input_names=["inputs"], output_names=["outputs"], dynamo=True, verbose=False
            )
    except torch.onnx.OnnxExporterError as error:
        raise UsageError(
            "--format onnx",
            expected="a network of operations that ONNX has",
            found=f"{error}".strip().splitlines()[0][:150],
            remedy="take --format pt2",
        ) from error
    return bytes(found.model_proto.SerializeToString())


@contextmanager
def _silence() -> Iterator[None]:
    """PyTorch tells of what it can't trace in pages on stderr; its exception says it in a line."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def outputs_of_pt2(path: Path, inputs: torch.Tensor) -> torch.Tensor:
    """What the network in a ``pt2`` file makes of inputs, (batch, …)."""
    with path.open("rb") as file, torch.no_grad():
        outputs: torch.Tensor = torch.export.load(file).module()(inputs)
    return outputs


def outputs_of_onnx(path: Path, inputs: torch.Tensor) -> torch.Tensor | None:
    """What ONNX Runtime makes of inputs, (batch, …), with the network in a file; None where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"inputs": inputs.numpy()})[0])
