"""What ``info`` says of a run directory as a whole: by which commands it was made, what it holds, and what is next."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from causalprune.base.errors import CorruptError, DataError
from causalprune.base.json_files import read_json
from causalprune.base.paths import RunPaths, progress_path
from causalprune.commands._said import said_options
from causalprune.commands.info.state_dict import weights_to_prune
from causalprune.commands.names import CONFIGS
from causalprune.config.recipes.authors import RECIPES

_TO_PRUNE = ["--sparsity", "0.9"]
"""What ``apply-mask`` has no default for; that of ``run``."""


def overview(
    run: RunPaths,
    artifacts: Sequence[Mapping[str, Any]],
    *,
    begun: tuple[str, list[str]] | None,
    exports: Sequence[Mapping[str, Any]],
    evaluated: bool,
    sweep: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a run directory was made by, and what to do next.

    Args:
        run: The directory.
        artifacts: Its files as ``info`` describes them, with their ``state``.
        begun: A stage that was interrupted, and what was said to it; None if none was.
        exports: Its exported networks.
        evaluated: Whether there is an evaluation of its last network.
        sweep: Its sweep, if there is one.

    Returns:
        ``command``, of the ``run`` that made it, None if single stages did; ``finished``, whether that has come to its
        end; ``model`` and ``dataset`` of the first network; ``bytes`` of its ``networks``, ``stores`` and ``exports``;
        ``next``, the command that comes next, without paths, device and log, None if there is nothing left to do.
    """
    options = _run_options(run)
    first = next((a for a in artifacts if "model" in a), {})
    stores = sum(a["bytes"] for a in artifacts if a["stage"] == "record" and "rows" in a)
    finished = run.result("run").exists() and not progress_path(run.run_config).exists()
    command = again = None if options is None else _command("run", options, run)
    if options is not None and any(part.discarded.exists() for part in run.iterations()):
        # Said again, so that what is still to come leaves no store either.
        again = _command("run", [*options, "--discard-stores"], run)
    return {
        "command": command,
        "finished": finished if command else None,
        "model": first.get("model"),
        "dataset": first.get("dataset"),
        "bytes": {
            "networks": sum(a["bytes"] for a in artifacts) - stores,
            "stores": stores,
            "exports": sum(e["bytes"] for e in exports),
        },
        "next": _next(run, artifacts, begun, command=again, finished=finished, evaluated=evaluated, sweep=sweep)
        or (None if exports or not evaluated else _of_last("export", {a["name"] for a in artifacts}, run)),
    }


def _run_options(run: RunPaths) -> list[str] | None:
    """What was said to ``run``, a recipe by its name only; None if it wasn't run, or if nothing tells."""
    try:
        stored = read_json(run.run_config) if run.run_config.exists() else None
    except (CorruptError, DataError):
        return None
    if not isinstance(stored, dict):
        return None
    if stored.get("recipe") and stored["recipe"] not in RECIPES:
        # A recipe of another version.
        return None
    return said_options("run", stored)


def _command(stage: str, options: Sequence[str], run: RunPaths) -> str:
    where = [] if run.root == Path("run") else ["--run", str(run.root)]
    return shlex.join(["causalprune", stage, *options, *where])


def _next(
    run: RunPaths,
    artifacts: Sequence[Mapping[str, Any]],
    begun: tuple[str, list[str]] | None,
    *,
    command: str | None,
    finished: bool,
    evaluated: bool,
    sweep: Mapping[str, Any] | None,
) -> str | None:
    if command and not finished:
        return command
    if begun is not None and begun[0] in CONFIGS:
        return _command(*begun, run)
    stale = next((a for a in artifacts if a["state"] == "stale" and a["stage"] in CONFIGS), None)
    if stale is not None:
        # The stages of a run have inputs that only it knows.
        anew = _command(stale["stage"], [*stale["options"], "--overwrite"], run)
        return f"{command} --overwrite" if command else anew
    if sweep is not None:
        # Only whoever started it knows its options.
        finished = sweep["done"] == sweep["cells"]
        return _command("report", [], run) if finished and not _is_reported(run) else None
    there = {artifact["name"] for artifact in artifacts}
    stores = {a["state"] for a in artifacts if a["name"] == run.store.name}
    if "recording" in stores:
        # Whatever comes next waits for its end.
        return None
    if "unfinished" in stores:
        # Without a saved state nothing tells its options.
        return _command("record", [], run)
    # Whoever has repaired a network doesn't train it: that costs more than it gains (docs/study.md).
    if there & {"final.safetensors", "repaired.safetensors"}:
        return None if evaluated else _of_last("evaluate", there, run)
    if any(name.startswith("iteration-") for name in there):
        return None
    if "pruned.safetensors" in there:
        return _command("posttrain", [], run)
    if any(artifact.get("fits") for artifact in artifacts):
        return _pruning(run, there)
    if "trajectory.zarr" in there:
        return _command("fit-gamma", [], run)
    return _command("record" if "pretrained.safetensors" in there else "pretrain", [], run)


def _pruning(run: RunPaths, there: Collection[str]) -> str | None:
    """The mask of a recording: of a checkpoint, else of the only state dict in the folder."""
    if "recorded.safetensors" in there:
        return _command("apply-mask", _TO_PRUNE, run)
    weights = weights_to_prune(run)
    if weights is None:
        return None
    return shlex.join(["causalprune", "apply-mask", "--weights", f"{weights}", "--store", f"{run.store}", *_TO_PRUNE])


def _of_last(stage: str, there: Collection[str], run: RunPaths) -> str | None:
    """A stage on the last network, where that is one that needs no more training."""
    if "final.safetensors" in there:
        return _command(stage, [], run)
    return f"causalprune {stage} {shlex.quote(str(run.repaired))}" if "repaired.safetensors" in there else None


def _is_reported(run: RunPaths) -> bool:
    """Whether the page of a sweep is there, made after its table."""
    page, table = run.root / "report" / "index.html", run.sweep.table
    return page.exists() and table.exists() and page.stat().st_mtime >= table.stat().st_mtime
