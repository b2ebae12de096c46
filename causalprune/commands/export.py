"""``export``: write a network for use elsewhere; it gets its name once it reads back as the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.analysis.cost import latency, measured_batches
from causalprune.analysis.flops import flops
from causalprune.base.compute.inputs import count_of, divided
from causalprune.base.errors import UsageError
from causalprune.base.files import atomic_file, make_directory, remove_partials
from causalprune.base.json_files import sha256_file
from causalprune.base.locks import FileLock
from causalprune.base.paths import RunPaths, lock_path, result_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._network import load_its_data, load_network, needs_statistics, samples_of
from causalprune.commands._output import StageResult, Work, check_distinct, done_already, read_result, write_result
from causalprune.config.export import ExportConfig
from causalprune.models.export.formats import ExportFormat, Networks
from causalprune.models.names import EXPORT_FORMATS
from causalprune.models.wrappers import plain_copy
from causalprune.pruning.compact import BATCH, compact_model, dead_units


@dataclass(frozen=True, kw_only=True)
class ExportResult(StageResult):
    """Result of export.

    Attributes:
        identity: Hash of what decides the result.
        format: The format.
        file_bytes: Size of the file.
        parameters: Values in the exported network's parameters.
        parameters_before: The same of the checkpoint's.
        verified: How the file was compared after reading it back: ``bits`` (of the tensors, or of a PyTorch network's
            outputs), ``outputs`` (an ONNX network's, up to rounding), or ``not`` where ONNX Runtime is missing.
        max_difference: Largest difference between the outputs of the checkpoint's network and those of the file's
            network, or of the network whose tensors the file holds; on random inputs, with ``--compact`` on samples of
            the test split.
        dead_units: Filters and neurons of the checkpoint whose weights are all pruned.
        classes: What each output of a classifier stands for, in their order; empty where the checkpoint doesn't say.
        compact: With ``--compact``: ``layers`` (``name``, ``units``, ``dead``, ``removed``), ``samples`` (training
            samples that decided, and test samples that the networks were compared on, too), ``flops``,
            ``flops_before`` and ``flops_uncounted`` per sample, and ``latency``, seconds by batch size, ``before`` and
            ``after``; else None.
    """

    identity: str
    format: str
    file_bytes: int
    parameters: int
    parameters_before: int
    verified: str
    max_difference: float
    dead_units: int = 0
    compact: dict[str, Any] | None
    classes: tuple[str, ...] = ()


def export(config: ExportConfig, reporter: Reporter = SILENT) -> ExportResult:
    """Write a checkpoint's network or its weights, for use without causalprune.

    Args:
        config: Which checkpoint, in which format, compact or not.
        reporter: Passes on warnings; silent when left out.

    Returns:
        What was written, and how it was compared after reading it back.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    work = Work(stage="export", config=config)
    run = RunPaths(config.run)
    source = config.checkpoint or run.final
    format: ExportFormat = EXPORT_FORMATS.load(config.format)
    if config.masks and not format.holds_masks:
        holding = [name for name in EXPORT_FORMATS if EXPORT_FORMATS.load(name).holds_masks]
        raise UsageError("--masks", expected=f"--format {' or '.join(holding)}", found=config.format)
    default = run.exported(format.suffix)
    path = config.output or default
    check_distinct(path, source)
    checkpoint = work.load_checkpoint(source, made_by="posttrain")
    work.outputs = {"model": path}
    # Files of other formats lie beside it, each with a record of its own.
    report = result_path(run, f"export.{config.format}", path, default)
    make_directory(path.parent)
    with FileLock(lock_path(path)):
        earlier = read_result(report) or _by_earlier_version(run, path)
        if done_already(
            f"{path}",
            work.identity,
            None if config.overwrite else _identity(path, earlier),
            remedy="pass --overwrite to replace it, or name an --output",
        ):
            done = work.common(already_done=True) | {"outputs": earlier["outputs"], "seconds": 0.0}
            return ExportResult(**done, **earlier["metrics"])
        remove_partials(path.parent, path.name)
        model, mask = load_network(checkpoint, source, torch.device("cpu"), trust_code=config.trust_code)
        model.eval()
        if needs_statistics(model, checkpoint.info):
            work.warn(
                reporter,
                "the running statistics of batch normalization are those of before the mask: export what "
                "posttrain --epochs 0 makes of this checkpoint",
            )
        shape, keep = checkpoint.info.model.input_shape, mask.tensors()
        exported, compact, held_out = model, None, None
        if config.compact:
            data = load_its_data(checkpoint, source, data_root=config.data_root, trust_code=config.trust_code)
            samples, held_out = (samples_of(data, split, torch.device("cpu")) for split in ("train", "test"))
            batches = (list(divided(part, BATCH)) for part in (samples, held_out))
            compacted = compact_model(model, mask.index, keep, *batches)
            exported = compacted.model
            before, after = flops(model, shape), flops(exported, shape)
            networks = [plain_copy(model), exported]
            compact = {
                "layers": [vars(layer) for layer in compacted.layers],
                "samples": [count_of(samples), count_of(held_out)],
                "flops_before": before.dense,
                "flops": after.dense,
                "flops_uncounted": list(before.uncounted),
                "latency": {
                    str(batch_size): dict(zip(("before", "after"), latency(networks, shape, batch_size), strict=True))
                    for batch_size in measured_batches(model)
                },
            }
        dead = sum(map(len, dead_units(mask.index, keep)))
        if config.compact:
            keep = {entry.name: exported.get_parameter(entry.name).detach() != 0 for entry in mask.index}
        written, compare = format.encode(Networks(model, exported, shape, held_out), keep, config.masks)
        with atomic_file(path) as file:
            file.write(written)
            verified, difference = compare(Path(file.name))
            if verified == "not":
                reporter.warn("the ONNX file wasn't compared: pip install '.[onnx]' for ONNX Runtime")
            result = ExportResult(
                **work.common(),
                identity=work.identity,
                format=config.format,
                file_bytes=len(written),
                parameters=_count(exported),
                parameters_before=_count(model),
                verified=verified,
                max_difference=difference,
                dead_units=dead,
                compact=compact,
                classes=checkpoint.info.classes,
            )
            # Before the model, so that no crash leaves a model that the same command would take for another's.
            write_result(report, {**result.to_json(), "sha256": hashlib.sha256(written).hexdigest()})
        return result


def _by_earlier_version(run: RunPaths, path: Path) -> dict[str, Any]:
    """The record of a file by a version that had one for all formats; empty if that is of another file."""
    found = read_result(run.result("export"))
    return found if Path(str(found.get("outputs", {}).get("model", ""))).name == path.name else {}


def _identity(path: Path, report: dict[str, Any]) -> str | None:
    """Identity of the export that made the file; empty for any other file, None if there is no file."""
    if not path.exists():
        return None
    return str(report["metrics"].get("identity")) if report and report.get("sha256") == sha256_file(path) else ""


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
