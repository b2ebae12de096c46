"""Write a model for use elsewhere, once it reads back as what it was."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.checkpoint import load_checkpoint
from causalprune.config import ExportConfig
from causalprune.config.export import FORMATS
from causalprune.errors import MismatchError
from causalprune.evaluation.cost import flops
from causalprune.evaluation.latency import LATENCY_BATCHES, latency
from causalprune.export.compact import compact_model
from causalprune.export.formats import from_csr, onnx_bytes, safetensors_bytes, to_csr, torch_bytes, with_mask_names
from causalprune.files import make_directory, read_json, remove_partials, sha256_file, write_atomic, write_json
from causalprune.locking import FileLock
from causalprune.paths import RunPaths, lock_path, result_path
from causalprune.reporting import Reporter
from causalprune.stages.artefacts import StageResult, check_distinct, identity_of
from causalprune.stages.loading import load_network

ONNX_TOLERANCE = 1e-4
"""Largest difference of an ONNX model's outputs, relative to the largest output."""


@dataclass(frozen=True, kw_only=True)
class ExportResult(StageResult):
    """Result of export.

    Attributes:
        identity: Hash of what decides the result.
        format: The format.
        file_bytes: Size of the file.
        parameters: Values in the exported network's parameters.
        parameters_before: The same of the checkpoint's.
        verified: How the file was compared after reading it back: ``bits``, ``outputs``, or ``not`` where ONNX Runtime
            is missing.
        max_difference: Largest difference of outputs on random inputs, of the file's network (ONNX) or of the compact
            one, from the checkpoint's; 0 where bits were compared.
        compact: Of ``--compact``: ``layers`` (``name``, ``units``, ``dead``, ``removed``), ``flops`` and
            ``flops_before`` a sample, and ``latency``, seconds by batch size, ``before`` and ``after``; else None.
    """

    identity: str
    format: str
    file_bytes: int
    parameters: int
    parameters_before: int
    verified: str
    max_difference: float
    compact: dict[str, Any] | None


def export(config: ExportConfig, reporter: Reporter | None = None) -> ExportResult:
    """Write a checkpoint's model so that it loads without causalprune.

    Args:
        config: Which checkpoint, in which format, compact or not.
        reporter: Passes on warnings; silent when left out.

    Returns:
        What was written, and that it reads back as the same.

    Raises:
        CausalpruneError: See :mod:`causalprune.errors` for the family.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    run = RunPaths(config.run)
    source = config.checkpoint or run.final
    default = run.exported(FORMATS[config.format])
    path = config.output or default
    check_distinct(path, source)
    checkpoint = load_checkpoint(source, remedy="run `causalprune posttrain` first, or name a --checkpoint")
    inputs = {"checkpoint": checkpoint.sha256}
    identity = identity_of("export", config, inputs)
    report = result_path(run, "export", path, default)
    make_directory(path.parent)
    with FileLock(lock_path(path), break_lock=config.break_lock):
        done = None if config.overwrite else _finished(path, report, identity)
        if done is not None:
            return done
        remove_partials(path.parent, path.name)
        model, mask = load_network(checkpoint, source, torch.device("cpu"), trust_code=config.trust_code)
        model.eval()
        shape, keep = checkpoint.info.model.input_shape, mask.tensors()
        before, compact, difference = model, None, 0.0
        if config.compact:
            compacted = compact_model(model, mask.index, keep, shape)
            model, difference = compacted.model, compacted.max_difference
            keep = {entry.name: model.get_parameter(entry.name).detach() != 0 for entry in mask.index}
            compact = {
                "layers": [vars(layer) for layer in compacted.layers],
                "flops_before": flops(before, shape).dense,
                "flops": flops(model, shape).dense,
                "latency": _latencies(before, model, shape),
            }
        weights = model.state_dict()
        if config.format == "onnx":
            data, verified, difference = _onnx(path, model, shape, reporter)
        else:
            data, verified = _tensors(config, weights, keep), "bits"
        result = ExportResult(
            stage="export",
            inputs=inputs,
            outputs={"model": str(path)},
            seconds=time.monotonic() - started,
            identity=identity,
            format=config.format,
            file_bytes=len(data),
            parameters=_count(model),
            parameters_before=_count(before),
            verified=verified,
            max_difference=difference,
            compact=compact,
        )
        make_directory(report.parent)
        remove_partials(report.parent, report.name)
        # Before the model: a crash between them leaves no file that the same command would take for another's.
        write_json(report, {**result.to_json(), "sha256": hashlib.sha256(data).hexdigest()})
        write_atomic(path, data)
        return result


def _finished(path: Path, report: Path, identity: str) -> ExportResult | None:
    """The result of the very same export if its file is there and whole.

    Raises:
        MismatchError: The file exists and is another one.
    """
    if not path.exists():
        return None
    value = read_json(report) if report.exists() else {}
    metrics = value.get("metrics", {}) if isinstance(value, dict) else {}
    if metrics.get("identity") != identity or value.get("sha256") != sha256_file(path):
        raise MismatchError(
            f"{path}",
            expected="no such file, or the result of this very configuration and input",
            found="another",
            remedy="pass --overwrite to replace it, or name an --output",
        )
    common = {name: value[name] for name in ("inputs", "outputs")}
    return ExportResult(stage="export", already_done=True, **common, **metrics)


def _latencies(before: nn.Module, after: nn.Module, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    found = {}
    for batch_size in LATENCY_BATCHES:
        seconds = latency([before, after], shape, batch_size)
        found[str(batch_size)] = dict(zip(("before", "after"), seconds, strict=True))
    return found


def _tensors(config: ExportConfig, weights: dict[str, torch.Tensor], keep: Mapping[str, torch.Tensor]) -> bytes:
    """A state dict in the format asked for, read back and compared bit for bit.

    Raises:
        MismatchError: It reads back as something else.
    """
    from safetensors.torch import load

    named = with_mask_names(weights, keep) if config.masks else weights
    if config.format == "torch":
        data = torch_bytes(named)
        read = torch.load(io.BytesIO(data), weights_only=True)
    elif config.format == "safetensors":
        data = safetensors_bytes(named)
        read = load(data)
    else:
        data = safetensors_bytes(to_csr(weights, keep))
        read = from_csr(load(data))
    same = read.keys() == named.keys() and all(
        t.dtype == read[n].dtype and t.shape == read[n].shape and t.numpy().tobytes() == read[n].numpy().tobytes()
        for n, t in ((n, t.contiguous()) for n, t in named.items())
    )
    if not same:
        raise MismatchError(f"--format {config.format}", expected="the bits of the checkpoint", found="others")
    return data


def _onnx(path: Path, model: nn.Module, shape: tuple[int, ...], reporter: Reporter) -> tuple[bytes, str, float]:
    """The network as ONNX, how it was compared, and the largest difference of its outputs in ONNX Runtime.

    Raises:
        MismatchError: They differ.
    """
    data = onnx_bytes(model, shape)
    try:
        import onnxruntime
    except ImportError:
        reporter.warn("the ONNX file wasn't compared: pip install 'causalprune[onnx]' for ONNX Runtime")
        return data, "not", 0.0
    inputs = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(inputs)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"inputs": inputs.numpy()})[0])
    difference = float((expected - found).abs().max())
    if not difference <= ONNX_TOLERANCE * float(expected.abs().max().clamp(min=1)):
        raise MismatchError(f"{path}", expected="the outputs of the model", found=f"a difference of {difference:.3g}")
    return data, "outputs", difference


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
