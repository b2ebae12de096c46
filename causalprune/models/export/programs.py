"""The formats of a whole network, for any batch size; reading them needs neither the model's class nor causalprune.

``pt2``: the program that ``torch.export`` traces, written by ``torch.export.save``; PyTorch reads it. ``onnx``: the
same program as ONNX; ONNX Runtime reads it.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_unflatten

from causalprune.base.compute.inputs import Inputs, example_inputs, forward, logits_of, network_outputs, parts_of
from causalprune.base.compute.shapes import InputShape, SeveralInputs
from causalprune.base.errors import MismatchError, StorageError, UsageError, missing_extra, translate
from causalprune.base.paths import utf8_path
from causalprune.models.export.formats import (
    Compare,
    ExportFormat,
    Networks,
    difference,
    same_bits,
    saved_bytes,
)
from causalprune.models.wrappers import plain_copy

Program = torch.export.ExportedProgram

ONNX_TOLERANCE = 1e-4
"""Largest difference between the outputs of an ONNX network and the checkpoint's, relative to the largest output."""


def trace(model: nn.Module, input_shape: InputShape) -> Program:
    """Trace the operations of a network in evaluation mode, on the CPU, for any number of samples.

    Args:
        model: The network; not changed.
        input_shape: Shape of one sample.

    Raises:
        UsageError: The operations depend on the values of the inputs or on the batch size, or aren't PyTorch's.
    """
    twin = plain_copy(model).cpu()
    # Two samples, because torch.export takes a batch size of 1 for a constant.
    example = example_inputs(input_shape, 2)
    named = dict(example) if isinstance(example, Mapping) else {}
    arguments = () if named else tuple(parts_of(example))
    dynamic = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for part in parts_of(example):
        dynamic[part] = {0: torch.export.Dim("batch")}
    try:
        _simplify_outputs(twin, example)
        with _silence():
            program = torch.export.export(twin, arguments, named, dynamic_shapes=dynamic)
    except Exception as error:
        known = translate(error)
        if isinstance(known, StorageError):
            raise known from error
        raise UsageError(
            "`format=pt2` or onnx",
            expected="a network that torch.export can trace with any batch size",
            found=(f"{error}".strip() or type(error).__name__).splitlines()[0][:150],
            remedy="export its weights: `format=torch`, safetensors or csr",
        ) from error
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            # The source paths and lines of this machine are of no use elsewhere.
            node.meta.pop("stack_trace", None)
    return program


def _simplify_outputs(twin: nn.Module, example: Inputs) -> None:
    """Let a network whose outputs are an object of a class that PyTorch doesn't know put out only what counts."""
    with torch.no_grad():
        leaves = tree_leaves(forward(twin, example))
    if all(isinstance(leaf, torch.Tensor | int | float | None) for leaf in leaves):
        return
    full = twin.forward

    @wraps(full)
    def counting(*arguments: Any, **named: Any) -> torch.Tensor:
        return logits_of(full(*arguments, **named))

    twin.forward = counting


def input_names(shape: InputShape) -> list[str]:
    """The names of the inputs in an ONNX file: ``inputs`` for one, those of a network's arguments for several."""
    if not isinstance(shape, SeveralInputs):
        return ["inputs"]
    return list(shape.names) or [f"inputs_{number}" for number in range(len(shape.parts))]


def _output_names(program: Program) -> list[str]:
    """``outputs`` for the one that counts."""
    outputs = program.graph_signature.user_outputs
    structure: Any = tree_unflatten(
        [torch.tensor(number) for number in range(len(outputs))], program.call_spec.out_spec
    )
    counts = int(logits_of(structure))
    return ["outputs" if number == counts else f"output_{number}" for number in range(len(outputs))]


def onnx_bytes(program: Program, names: Sequence[str] = ("inputs",)) -> bytes:
    """A program as ONNX, with inputs (batch, …) of these names, and the output ``outputs``.

    Raises:
        UsageError: A package that PyTorch's exporter needs is missing, or an operation has no counterpart in ONNX.
    """
    try:
        import onnx  # noqa: F401 -- for a clear message before the exporter starts
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_extra("`format=onnx` needs onnx and onnxscript", "onnx") from error
    try:
        with _silence():
            found: Any = torch.onnx.export(
                program, input_names=list(names), output_names=_output_names(program), dynamo=True, verbose=False
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
    """Silence the pages that PyTorch prints about what it can't trace; the first line of its exception is enough."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _encode_pt2(networks: Networks, *_: object) -> tuple[bytes, Compare]:
    """Encode the program; PyTorch must compute the same bits with it."""

    def compare(path: Path) -> tuple[str, float]:
        with path.open("rb") as file, torch.no_grad():
            found = network_outputs(torch.export.load(file).module(), networks.inputs())
        if not same_bits(networks.outputs(networks.exported), found):
            raise MismatchError(
                "`format=pt2`, read back", expected="the network's outputs, bit for bit", found="others"
            )
        return "bits", difference(networks.outputs(networks.checkpoint), found)

    return saved_bytes(torch.export.save, trace(networks.exported, networks.input_shape)), compare


def _encode_onnx(networks: Networks, *_: object) -> tuple[bytes, Compare]:
    """Encode the program; if ONNX Runtime is installed, it must compute the same up to rounding."""
    names = input_names(networks.input_shape)

    def compare(path: Path) -> tuple[str, float]:
        try:
            import onnxruntime
        except ImportError:
            return "not", 0.0
        with utf8_path(path) as name:
            session = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
        given = zip(names, (part.numpy() for part in parts_of(networks.inputs())), strict=True)
        found = torch.from_numpy(session.run(["outputs"], dict(given))[0])
        expected = networks.outputs(networks.checkpoint)
        off, largest = difference(expected, found), float(expected.abs().max())
        # Relative to the outputs, however small they are; all zeros must stay zeros.
        if not off <= ONNX_TOLERANCE * largest:
            raise MismatchError(
                "`format=onnx`, read back",
                expected=f"the network's outputs, the largest of them {largest:.3g}",
                found=f"a difference of {off:.3g}",
            )
        return "outputs", off

    return onnx_bytes(trace(networks.exported, networks.input_shape), names), compare


PT2 = ExportFormat(".pt2", _encode_pt2)
ONNX = ExportFormat(".onnx", _encode_onnx)
