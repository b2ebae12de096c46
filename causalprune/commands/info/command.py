"""Say what a store, a checkpoint or a run directory is, where it comes from and whether it is whole.

Nothing here imports PyTorch or Zarr: headers and commit logs are enough, so it answers in under a second.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from causalprune.base.errors import CausalpruneError, CorruptError, DataError, ExitCode, UsageError
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths, StoreUrl, fallback_path, progress_path
from causalprune.base.progress import Reporter
from causalprune.commands._output import read_result
from causalprune.commands.info.store_description import (
    Problems,
    describe_parameter,
    describe_rows,
    describe_store,
    step_norms,
)
from causalprune.commands.names import with_flags
from causalprune.config.info import InfoConfig
from causalprune.models.checkpoint import CheckpointInfo, load_checkpoint, read_checkpoint_info
from causalprune.trajectory import Store


@dataclass(frozen=True, kw_only=True)
class InfoResult:
    """Result of info.

    Attributes:
        kind: ``run``, ``checkpoint`` or ``store``.
        path: What was looked at.
        details: What it says about itself.
        problems: What is wrong with it; empty when healthy.
        exit_code: Of the command: that of damage, if any was found.
        seconds: Wall time.
    """

    kind: str
    path: str
    details: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    exit_code: ExitCode = ExitCode.DONE
    seconds: float = 0.0
    already_done: bool = False

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``--json``."""
        return {
            "schema_version": 1,
            "stage": "info",
            "kind": self.kind,
            "path": self.path,
            "details": self.details,
            "healthy": not self.problems,
            "problems": self.problems,
            "timings": {"seconds": round(self.seconds, 3)},
        }


def info(config: InfoConfig, reporter: Reporter | None = None) -> InfoResult:
    """Describe a store, a checkpoint or a run directory.

    Args:
        config: Which, and whether to read everything again.
        reporter: Not used; every stage takes one.

    Returns:
        The description and the problems found.

    Raises:
        DataError: Nothing there.
        CorruptError: Something that isn't causalprune's.
    """
    del reporter
    started = time.monotonic()
    path = config.path or config.run
    problems = Problems()
    if isinstance(path, StoreUrl):
        kind, details = "store", _describe_store(config, path, problems)
    else:
        kind, details = _describe_path(config, path, problems)
    return InfoResult(
        kind=kind,
        path=str(path),
        details=details,
        problems=problems.lines,
        exit_code=ExitCode.CORRUPT if problems.damaged else ExitCode.DONE,
        seconds=time.monotonic() - started,
    )


def _describe_path(config: InfoConfig, path: Path, problems: Problems) -> tuple[str, dict[str, Any]]:
    if not path.exists():
        remedy = "run a stage first, or name a path"
        raise DataError(f"{path}", expected="a store, a checkpoint or a run directory", found="nothing", remedy=remedy)
    is_store = (path / "zarr.json").exists()
    if (config.rows or config.param or config.plot) and not is_store:
        raise UsageError("--rows, --param and --plot", expected="a trajectory store to look into", found=f"{path}")
    if path.is_file():
        return "checkpoint", _describe_checkpoint(path, verify=config.verify)
    if is_store:
        return "store", _describe_store(config, path, problems)
    return "run", _describe_run(RunPaths(path), problems, verify=config.verify)


def _describe_store(config: InfoConfig, path: Path | StoreUrl, problems: Problems) -> dict[str, Any]:
    store = Store.open(path)
    return describe_store(store, problems, verify=config.verify) | _look_inside(config, store)


def _look_inside(config: InfoConfig, store: Store) -> dict[str, Any]:
    """What needs the deltas themselves, and is read only when asked for: rows, a parameter, a picture."""
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
        if fit is not None:
            from causalprune.analysis.plots.recording import plot_path

            plot_path(fit.attributes["evidence"], config.plot)
        else:
            from causalprune.analysis.plots.recording import plot_recording

            plot_recording(reader.loss_change, step_norms(reader, 0, reader.num_rows), config.plot)
        details["plot"] = str(config.plot)
    return details


def _describe_checkpoint(path: Path, *, verify: bool) -> dict[str, Any]:
    header = load_checkpoint(path).info if verify else read_checkpoint_info(path)
    return {
        "stage": header.stage,
        "model": header.model.to_json(),
        "data": header.data.to_json(),
        "prunable": header.index.total,
        "kept": sum(header.kept.values()),
        "sparsity": header.sparsity,
        "layers": [{"name": e.name, "total": e.size, "kept": header.kept[e.name]} for e in header.index],
        "file_bytes": path.stat().st_size,
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
            name = str(path.relative_to(run.root))
            try:
                if path.is_dir():
                    details = describe_store(Store.open(path), problems, verify=verify)
                    last = details["recordings"][-1] if details["recordings"] else None
                    rows = f"{last['rows']} × {last['columns']}" if last else "empty"
                    fits = ", ".join(last["fits"]) if last else ""
                    artifacts.append({"name": name, "stage": "record", "inputs": {"start": details["start_sha256"]}})
                    artifacts[-1] |= {"rows": rows, "fits": fits, "bytes": last["stored_bytes"] if last else 0}
                    if last:
                        hashes[last["digest"]] = name
                    continue
                header = load_checkpoint(path).info if verify else read_checkpoint_info(path)
                artifacts.append(_checkpoint_line(name, header, path))
                hashes[_recorded_hash(part, path, verify=verify)] = name
            except CausalpruneError as error:
                problems.add_damage([with_flags(str(error))])
    if not artifacts and not problems.lines:
        raise CorruptError(
            f"{run.root}",
            expected="a run directory, a store or a checkpoint",
            found="a directory with none of its files",
        )
    for artifact in artifacts:
        artifact["made_from"] = {
            role: hashes.get(digest, digest[:12]) for role, digest in artifact.pop("inputs").items() if digest
        }
    return {"artefacts": artifacts, "evaluation": _evaluation(run, problems)}  # codespell:ignore artefacts


def _evaluation(run: RunPaths, problems: Problems) -> dict[str, Any] | None:
    path = run.result("evaluate")
    if not path.exists():
        return None
    result = read_result(path)
    evaluation = result.get("metrics", {}).get("evaluation")
    if result.get("stage") == "evaluate" and isinstance(evaluation, dict):
        return evaluation
    problems.lines.append(f"{path} isn't a result of evaluate: move it away")
    return None


def _checkpoint_line(name: str, header: CheckpointInfo, path: Path) -> dict[str, Any]:
    return {
        "name": name,
        "stage": header.stage,
        "inputs": header.inputs,
        "sparsity": header.sparsity,
        "bytes": path.stat().st_size,
        "model": header.model.name,
        "dataset": header.data.name,
    }


def _recorded_hash(run: RunPaths, path: Path, *, verify: bool) -> str:
    """A checkpoint's hash as its stage wrote it down; hashing a large file would take longer than a user waits."""
    stage = {run.pretrained: "pretrain", run.recorded: "record", run.pruned: "apply-mask", run.final: "posttrain"}
    # An iteration's training isn't the run directory's own posttrain.
    result = path.with_name(path.name + ".json") if path == run.trained else run.result(stage[path])
    written = "" if verify else read_result(result).get("sha256", "")
    return str(written) or sha256_file(path)
