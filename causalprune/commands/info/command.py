"""Describe a store, a network, an exported one or a run directory: what it is, where from, and whether it is intact.

Nothing here imports PyTorch or Zarr: headers and commit logs are enough, so the answer takes less than a second.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from causalprune.base.errors import DataError, ExitCode, UsageError
from causalprune.base.files import require_file
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths, StoreUrl, SweepPaths, mask_path, meant_path, store_of_iteration
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._findings import training_findings
from causalprune.commands._output import SCHEMA_VERSION
from causalprune.commands._said import said_options
from causalprune.commands._stores import open_store
from causalprune.commands.info.exported import describe_export, export_record
from causalprune.commands.info.recipes import describe_recipe
from causalprune.commands.info.results import refuse_json
from causalprune.commands.info.run_description import check_mask, describe_run, made_from, read_header
from causalprune.commands.info.state_dict import describe_state_dict, state_dict_header
from causalprune.commands.info.store_description import (
    Problems,
    describe_parameter,
    describe_rows,
    describe_store,
    step_norms,
)
from causalprune.commands.names import with_flags
from causalprune.config.info import InfoConfig
from causalprune.trajectory import Store


@dataclass(frozen=True, kw_only=True)
class InfoResult:
    """Result of info.

    Attributes:
        kind: ``run``, ``checkpoint``, ``state dict``, ``store``, ``export`` or ``recipe``.
        path: What was described; of a recipe its name.
        details: The description.
        problems: What is wrong with it; empty when healthy.
        warnings: What isn't wrong with it, but should be known.
        exit_code: Exit code of the command: that of damage if any was found.
        seconds: Wall time.
    """

    kind: str
    path: str
    details: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exit_code: ExitCode = ExitCode.DONE
    seconds: float = 0.0
    already_done: bool = False

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``--json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "stage": "info",
            "kind": self.kind,
            "path": self.path,
            "details": self.details,
            "healthy": not self.problems,
            "problems": self.problems,
            "warnings": self.warnings,
            "timings": {"seconds": round(self.seconds, 3)},
        }


def info(config: InfoConfig, reporter: Reporter = SILENT) -> InfoResult:  # noqa: ARG001
    """Describe a store, a checkpoint or a run directory.

    Args:
        config: Which one, and whether to read all of it again.
        reporter: Not used; each command takes one.

    Returns:
        The description and the problems found.

    Raises:
        DataError: Nothing there, or a result, which says itself what it is.
        CorruptError: Not a file of causalprune.
    """
    started = time.monotonic()
    path = config.path or config.run
    problems = Problems()
    if config.recipe:
        kind, path, details = "recipe", Path(config.recipe), describe_recipe(config.recipe)
    elif isinstance(path, StoreUrl):
        kind, details = "store", _describe_store(config, path, problems)
    else:
        kind, details = _describe_path(config, path, problems)
    return InfoResult(
        kind=kind,
        path=str(path),
        details=details,
        problems=problems.lines,
        warnings=[with_flags(warning) for warning in problems.warnings],
        exit_code=ExitCode.CORRUPT if problems.damaged else ExitCode.DONE,
        seconds=time.monotonic() - started,
    )


def _describe_path(config: InfoConfig, path: Path, problems: Problems) -> tuple[str, dict[str, Any]]:
    if not path.is_dir():
        near = store_of_iteration(path) or (meant_path(path) if config.path is not None else "")
        remedy = near or "run a stage first, or name a path"
        require_file(path, expected="a store, a checkpoint or a run directory", remedy=remedy)
    is_store = (path / "zarr.json").exists()
    if (config.rows or config.param or config.plot) and not is_store:
        raise UsageError("--rows, --param and --plot", expected="a trajectory store to look into", found=f"{path}")
    if not path.is_dir() and (record := export_record(path)):
        details = describe_export(path, record, problems, verify=config.verify)
        return "export", details | {"made_from": made_from(RunPaths(path.parent), record["inputs"])}
    if path.suffix == ".json" and not path.is_dir():
        refuse_json(path)
    if not path.is_dir() and (header := state_dict_header(path)):
        return "state dict", describe_state_dict(path, header, problems)
    if not path.is_dir():
        return "checkpoint", _describe_checkpoint(path, problems, verify=config.verify)
    if is_store:
        return "store", _describe_store(config, path, problems)
    if SweepPaths(path).grid.is_file():
        path = path.resolve().parent if path.resolve().name == RunPaths(path).sweep.root.name else path
    return "run", describe_run(RunPaths(path), problems, verify=config.verify)


def _describe_store(config: InfoConfig, path: Path | StoreUrl, problems: Problems) -> dict[str, Any]:
    store = open_store(path)
    return describe_store(store, problems, verify=config.verify) | _look_inside(config, store)


def _look_inside(config: InfoConfig, store: Store) -> dict[str, Any]:
    """The details that take the deltas themselves and are read only on request: rows, a parameter, a picture."""
    details: dict[str, Any] = {}
    if not (config.rows or config.param or config.plot or config.fit):
        return details
    reader = store.recording()
    if reader.num_rows == 0:
        raise DataError(f"{reader.path}", expected="at least one row", found="none", remedy="record first")
    if config.rows:
        details["rows"] = describe_rows(reader, config.rows)
    if config.param:
        details["parameter"] = describe_parameter(reader, config.param)
    fit = reader.read_fit(config.fit) if config.fit else None
    if config.plot:
        from causalprune.analysis.plots.recording import plot_path, plot_recording

        if fit is not None:
            plot_path(fit.attributes["evidence"], config.plot)
        else:
            plot_recording(reader.loss_change, step_norms(reader, 0, reader.num_rows), config.plot)
        details["plot"] = str(config.plot)
    return details


def _describe_checkpoint(path: Path, problems: Problems, *, verify: bool) -> dict[str, Any]:
    header = read_header(path, verify=verify)
    mask = mask_path(path)
    if header.mask_digest:
        check_mask(path, header, sha256_file(path), problems)
    problems.warnings += training_findings(header.metrics)
    return {
        "stage": header.stage,
        "options": said_options(header.stage, header.config),
        "model": header.model.to_json(),
        "data": header.data.to_json(),
        "classes": list(header.classes),
        "prunable": header.index.total,
        "kept": sum(header.kept.values()),
        "sparsity": header.sparsity,
        "layers": [{"name": e.name, "total": e.size, "kept": header.kept[e.name]} for e in header.index],
        "file_bytes": path.stat().st_size,
        "mask": str(mask) if header.mask_digest else None,
        "inputs": header.inputs,
        "config": header.config,
        "versions": header.versions,
        "validation": header.metrics.get("validation"),
        "best_epoch": header.metrics.get("best_epoch"),
        "history": header.metrics.get("history", []),
    }
