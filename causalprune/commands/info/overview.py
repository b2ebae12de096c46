"""What ``info`` says of a run directory as a whole: by which commands it was made, what it holds, and what is next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from causalprune.base.errors import CorruptError, DataError
from causalprune.base.json_files import read_json
from causalprune.base.paths import RunPaths, progress_path
from causalprune.commands._said import said_options
from causalprune.commands.names import CONFIGS
from causalprune.config.recipes.authors import RECIPES


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
        or (None if exports or not evaluated else _command("export", [], run)),
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
        return _command("report", [], run) if finished else None
    there = {artifact["name"] for artifact in artifacts}
    if any(a["name"] == "trajectory.zarr" and a["state"] == "unfinished" for a in artifacts):
        # Without a saved state nothing tells its options.
        return _command("record", [], run)
    if there & {"final.safetensors"} or any(name.startswith("iteration-") for name in there):
        return None if evaluated else _command("evaluate", [], run)
    fits = any(artifact.get("fits") for artifact in artifacts)
    made = {
        "posttrain": bool(there & {"pruned.safetensors", "repaired.safetensors"}),
        "apply-mask": fits,
        "fit-gamma": "trajectory.zarr" in there,
        "record": "pretrained.safetensors" in there,
    }
    return _command(next((stage for stage, ready in made.items() if ready), "pretrain"), [], run)
