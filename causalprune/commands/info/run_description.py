"""What ``info`` says about a run directory: its files, which of them follow from each other, and what is next."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from causalprune.base.errors import DAMAGE, CorruptError, DataError
from causalprune.base.files import bytes_below
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths, fallback_path, progress_path
from causalprune.commands._findings import evaluation_findings, pruning_findings, training_findings
from causalprune.commands._output import require_unaltered
from causalprune.commands._said import said_options
from causalprune.commands.info.exported import exports
from causalprune.commands.info.overview import overview
from causalprune.commands.info.recipes import recipe_of
from causalprune.commands.info.results import check_results, describe_sweep
from causalprune.commands.info.store_description import Problems, describe_store
from causalprune.commands.names import with_flags
from causalprune.commands.provenance.lineage import adapted_by, recorded_hash, stale_checkpoints, stale_line
from causalprune.models.checkpoint import CheckpointInfo, load_checkpoint, read_checkpoint_info
from causalprune.models.file_pair import find_mask
from causalprune.trajectory import Store


def describe_run(run: RunPaths, problems: Problems, *, verify: bool) -> dict[str, Any]:
    """Describe a run directory.

    Args:
        run: The directory.
        problems: Problems are added to it.
        verify: Read everything again and compare all checksums.

    Returns:
        ``overview`` (:func:`causalprune.commands.info.overview.overview`, and ``fits``, the name of each fit by the
        beginning of its hash); its networks and stores, each with its ``stage``, the ``options`` that were said, its
        ``state`` (``done``, ``stale``, ``recording`` or ``unfinished``) and what it was ``made_from``; ``exports``;
        ``evaluation`` and ``evaluated``, the network that it measured, ``sweep`` and ``recipe``, None where there is
        none.

    Raises:
        DataError: A directory with nothing of causalprune.
    """
    artifacts: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    fits: dict[str, str] = {}
    begun: tuple[str, list[str]] | None = None
    last = ""
    stale = stale_checkpoints(run)
    made_by = "command" if run.run_config.exists() else "record command"
    for part in (run, *run.iterations()):
        for path in part.artifacts():
            if not path.exists():
                if progress_path(path).exists() or fallback_path(path).exists():
                    problems.lines.append(f"{path} is not finished: run the same command again to resume")
                    begun = begun or (_begun(path) if part is run else None)
                continue
            try:
                if path.is_dir():
                    line, digests, own_fits = _store_line(path, problems, verify=verify, made_by=made_by)
                    fits |= own_fits
                else:
                    line, digests = _checkpoint_line(path, problems, verify=verify)
                    last = digests[0] if part is run else last
            except DAMAGE as error:
                problems.add_damage([with_flags(str(error))])
                continue
            artifacts.append({"name": str(path.relative_to(run.root)), "state": "done", **line})
            artifacts[-1] |= {"state": "stale"} if path in stale else {}
            hashes |= dict.fromkeys(digests, artifacts[-1]["name"])
    problems.lines += [stale_line(path, reason) for path, reason in stale.items()]
    check_results(run, problems)
    sweep = describe_sweep(run.sweep, problems, verify=verify) if run.sweep.grid.exists() else None
    if not artifacts and not problems.lines and sweep is None and not run.run_config.exists():
        raise DataError(
            f"{run.root}",
            expected="a run directory, a store or a checkpoint",
            found="a directory without any of their files",
        )
    exported = exports(run)
    for artifact in artifacts:
        artifact["made_from"] = _named(artifact.pop("inputs"), hashes)
    for export in exported:
        export["made_from"] = _named({"checkpoint": export.pop("checkpoint")}, hashes)
    evaluation, measured = _evaluation(run, problems)
    if measured and run.final.exists() and measured not in hashes:
        problems.warnings.append(
            f"{run.result('evaluate')} is of a network that isn't here any more: run `causalprune evaluate` again"
        )
    # Another network's says nothing of what the run came to.
    evaluated = evaluation is not None and measured == last != ""
    problems.warnings += (
        evaluation_findings(evaluation, adapted_by(read_checkpoint_info(run.root / hashes[last]), run))
        if evaluation and evaluated
        else _pruning_findings(run)
    )
    found: dict[str, Any] = {"evaluation": evaluation, "sweep": sweep, "recipe": recipe_of(run), "exports": exported}
    found["evaluated"] = hashes.get(measured, f"network {_short(measured)}") if evaluation else None
    whole = overview(run, artifacts, begun=begun, exports=exported, evaluated=evaluated, sweep=sweep) | {"fits": fits}
    return {"overview": whole, "artefacts": artifacts, **found}  # codespell:ignore artefacts


def _begun(path: Path) -> tuple[str, list[str]] | None:
    """The stage whose state is saved for a resume, and what was said to it; None if that can't be read."""
    for saved in (progress_path(path), fallback_path(path)):
        with suppress(*DAMAGE, DataError):
            header = read_checkpoint_info(saved)
            return header.stage, said_options(header.stage, header.config)
    return None


def _short(digest: str) -> str:
    return digest[:12]


def _named(inputs: dict[str, str], hashes: dict[str, str]) -> dict[str, str]:
    """Inputs by role: the file's name if it is known, else the beginning of its hash."""
    return {role: hashes.get(digest, _short(digest)) for role, digest in inputs.items() if digest}


def made_from(run: RunPaths, inputs: dict[str, str]) -> dict[str, str]:
    """Inputs of a file beside the networks of a run directory."""
    hashes = {}
    for path in run.artifacts():
        with suppress(*DAMAGE):
            if path.is_file():
                hashes[recorded_hash(path, read_checkpoint_info(path))] = path.name
    return _named(inputs, hashes)


def _pruning_findings(run: RunPaths) -> list[str]:
    """What pruning cost by the validation metrics in the headers, where nothing has been evaluated yet."""
    try:
        final, dense = (read_checkpoint_info(path) for path in (run.final, run.pretrained))
        adapted = adapted_by(final, run)
    except (CorruptError, DataError):
        return []
    return pruning_findings(final.metrics.get("validation"), dense.metrics.get("validation"), "validation", adapted)


def _store_line(
    path: Path, problems: Problems, *, verify: bool, made_by: str
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """A line on a store, the hashes that its last recording has and had, and its fits by the beginning of theirs."""
    store = Store.open(path)
    details = describe_store(store, problems, verify=verify, made_by=made_by)
    # With all recordings and fits, because all of them take room.
    line: dict[str, Any] = {"stage": "record", "bytes": bytes_below(path), "options": []}
    line["inputs"] = {"start": details["start_sha256"]}
    if not details["recordings"]:
        return line | {"rows": "empty", "fits": ""}, [], {}
    last = details["recordings"][-1]
    rows, fits = f"{last['rows']} × {last['columns']}", ", ".join(last["fits"])
    # Where a process is recording, there is nothing to run again.
    state = {} if last["finished"] else {"state": "recording" if details["writer"] else "unfinished"}
    reader = store.recording(last["name"])
    named = {_short(reader.read_fit(name).digest): name for name in reader.fits}
    return line | {"rows": rows, "fits": fits} | state, last["digests"], named


def _checkpoint_line(path: Path, problems: Problems, *, verify: bool) -> tuple[dict[str, Any], list[str]]:
    """A line on a checkpoint, and its hash."""
    header = read_header(path, verify=verify)
    problems.warnings += [f"{path}: {finding}" for finding in training_findings(header.metrics)]
    line = {
        "stage": header.stage,
        "options": said_options(header.stage, header.config),
        "inputs": header.inputs,
        "sparsity": header.sparsity,
        "bytes": path.stat().st_size,
        "model": header.model.name,
        "dataset": header.data.name,
    }
    sha256 = sha256_file(path) if verify else recorded_hash(path, header)
    check_mask(path, header, sha256, problems)
    return line, [sha256]


def check_mask(path: Path, header: CheckpointInfo, sha256: str, problems: Problems) -> None:
    """Note what is wrong with the mask of a network of this hash."""
    try:
        if header.mask_digest:
            find_mask(path, sha256)
    except DAMAGE as error:
        problems.add_damage([with_flags(str(error))])


def _evaluation(run: RunPaths, problems: Problems) -> tuple[dict[str, Any] | None, str]:
    """The last evaluation, and the hash of the network that it measured; None and nothing without one."""
    path = run.result("evaluate")
    if not path.exists():
        return None, ""
    try:
        result = require_unaltered(path)
    except CorruptError:
        # Among the results that were compared already, unless it isn't one.
        result = {}
        if path in problems.altered:
            return None, ""
    evaluation = result.get("metrics", {}).get("evaluation")
    if result.get("stage") == "evaluate" and isinstance(evaluation, dict):
        return evaluation, str(result.get("inputs", {}).get("checkpoint", ""))
    problems.lines.append(f"{path} isn't a result of evaluate: move it away")
    return None, ""


def read_header(path: Path, *, verify: bool) -> CheckpointInfo:
    """The header of a checkpoint; with ``verify`` all of it is read and compared."""
    return load_checkpoint(path).info if verify else read_checkpoint_info(path)
