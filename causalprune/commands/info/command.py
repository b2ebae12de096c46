"""Describe a store, a checkpoint or a run directory: what it is, where it comes from and whether it is intact.

Nothing here imports PyTorch or Zarr: headers and commit logs are enough, so the answer takes less than a second.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from causalprune.base.errors import DAMAGE, CorruptError, DataError, ExitCode, UsageError
from causalprune.base.files import require_file
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths, StoreUrl, SweepPaths, fallback_path, mask_path, progress_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._findings import evaluation_findings, pruning_findings, training_findings
from causalprune.commands._output import SCHEMA_VERSION, require_unaltered
from causalprune.commands.info.recipes import describe_recipe, recipe_of
from causalprune.commands.info.results import check_results, describe_sweep
from causalprune.commands.info.store_description import (
    Problems,
    describe_parameter,
    describe_rows,
    describe_store,
    step_norms,
)
from causalprune.commands.names import with_flags
from causalprune.commands.provenance.lineage import recorded_hash, stale_checkpoints, stale_line
from causalprune.config.info import InfoConfig
from causalprune.models.checkpoint import CheckpointInfo, load_checkpoint, read_checkpoint_info
from causalprune.models.file_pair import find_mask
from causalprune.trajectory import Store


@dataclass(frozen=True, kw_only=True)
class InfoResult:
    """Result of info.

    Attributes:
        kind: ``run``, ``checkpoint``, ``store`` or ``recipe``.
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
        DataError: Nothing there.
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
        remedy = "run a stage first, or name a path"
        require_file(path, expected="a store, a checkpoint or a run directory", remedy=remedy)
    is_store = (path / "zarr.json").exists()
    if (config.rows or config.param or config.plot) and not is_store:
        raise UsageError("--rows, --param and --plot", expected="a trajectory store to look into", found=f"{path}")
    if not path.is_dir():
        return "checkpoint", _describe_checkpoint(path, problems, verify=config.verify)
    if is_store:
        return "store", _describe_store(config, path, problems)
    if SweepPaths(path).grid.is_file():
        path = path.resolve().parent if path.resolve().name == RunPaths(path).sweep.root.name else path
    return "run", _describe_run(RunPaths(path), problems, verify=config.verify)


def _describe_store(config: InfoConfig, path: Path | StoreUrl, problems: Problems) -> dict[str, Any]:
    store = Store.open(path)
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
    header = _read_header(path, verify=verify)
    mask = mask_path(path)
    if header.mask_digest:
        _check_mask(path, header, sha256_file(path), problems)
    problems.warnings += training_findings(header.metrics)
    return {
        "stage": header.stage,
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
    }


def _describe_run(run: RunPaths, problems: Problems, *, verify: bool) -> dict[str, Any]:
    artifacts: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    for part in (run, *run.iterations()):
        for path in part.artifacts():
            if not path.exists():
                if progress_path(path).exists() or fallback_path(path).exists():
                    problems.lines.append(f"{path} is not finished: run the same command again to resume")
                continue
            try:
                if path.is_dir():
                    line, digest = _store_line(path, problems, verify=verify)
                else:
                    line, digest = _checkpoint_line(path, problems, verify=verify)
            except DAMAGE as error:
                problems.add_damage([with_flags(str(error))])
                continue
            artifacts.append({"name": str(path.relative_to(run.root)), **line})
            hashes[digest] = artifacts[-1]["name"]
    problems.lines += [stale_line(path, reason) for path, reason in stale_checkpoints(run).items()]
    check_results(run, problems)
    sweep = describe_sweep(run.sweep, problems, verify=verify) if run.sweep.grid.exists() else None
    if not artifacts and not problems.lines and sweep is None:
        raise CorruptError(
            f"{run.root}",
            expected="a run directory, a store or a checkpoint",
            found="a directory with none of its files",
        )
    for artifact in artifacts:
        artifact["made_from"] = {
            role: hashes.get(digest, digest[:12]) for role, digest in artifact.pop("inputs").items() if digest
        }
    evaluation = _evaluation(run, problems)
    problems.warnings += evaluation_findings(evaluation) if evaluation else _pruning_findings(run)
    found = {"evaluation": evaluation, "sweep": sweep, "recipe": recipe_of(run)}
    return {"artefacts": artifacts, **found}  # codespell:ignore artefacts


def _pruning_findings(run: RunPaths) -> list[str]:
    """What pruning cost by the validation metrics in the headers, where nothing has been evaluated yet."""
    try:
        final, dense = (read_checkpoint_info(path).metrics.get("validation") for path in (run.final, run.pretrained))
    except (CorruptError, DataError):
        return []
    return pruning_findings(final, dense, "validation")


def _store_line(path: Path, problems: Problems, *, verify: bool) -> tuple[dict[str, Any], str]:
    """A line on a store, and the hash of its last recording."""
    details = describe_store(Store.open(path), problems, verify=verify)
    line = {"stage": "record", "inputs": {"start": details["start_sha256"]}}
    if not details["recordings"]:
        return line | {"rows": "empty", "fits": "", "bytes": 0}, ""
    last = details["recordings"][-1]
    rows, fits = f"{last['rows']} × {last['columns']}", ", ".join(last["fits"])
    return line | {"rows": rows, "fits": fits, "bytes": last["stored_bytes"]}, last["digest"]


def _checkpoint_line(path: Path, problems: Problems, *, verify: bool) -> tuple[dict[str, Any], str]:
    """A line on a checkpoint, and its hash."""
    header = _read_header(path, verify=verify)
    problems.warnings += [f"{path}: {finding}" for finding in training_findings(header.metrics)]
    line = {
        "stage": header.stage,
        "inputs": header.inputs,
        "sparsity": header.sparsity,
        "bytes": path.stat().st_size,
        "model": header.model.name,
        "dataset": header.data.name,
    }
    sha256 = sha256_file(path) if verify else recorded_hash(path, header)
    _check_mask(path, header, sha256, problems)
    return line, sha256


def _check_mask(path: Path, header: CheckpointInfo, sha256: str, problems: Problems) -> None:
    """Note what is wrong with the mask of a network of this hash."""
    try:
        if header.mask_digest:
            find_mask(path, sha256)
    except DAMAGE as error:
        problems.add_damage([with_flags(str(error))])


def _evaluation(run: RunPaths, problems: Problems) -> dict[str, Any] | None:
    path = run.result("evaluate")
    if not path.exists():
        return None
    try:
        result = require_unaltered(path)
    except CorruptError:
        # Among the results that were compared already, unless it isn't one.
        result = {}
        if path in problems.altered:
            return None
    evaluation = result.get("metrics", {}).get("evaluation")
    if result.get("stage") == "evaluate" and isinstance(evaluation, dict):
        return evaluation
    problems.lines.append(f"{path} isn't a result of evaluate: move it away")
    return None


def _read_header(path: Path, *, verify: bool) -> CheckpointInfo:
    return load_checkpoint(path).info if verify else read_checkpoint_info(path)
