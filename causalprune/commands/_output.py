"""Skip finished work, and never overwrite without ``--overwrite``: the rule of every command that writes something.

A command calls :func:`done_already` before the work. What it looks at differs: the header of a checkpoint, the
attributes of a fit, a result file, ``run.json``, the recording of a merged store. A command that measures anew each
time replaces its own earlier result (:func:`require_replaceable`, :func:`publish`). The steps and cells of a sweep are
named by the hash of what decides their result, so that they are done where their file exists.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from causalprune.base.errors import CausalpruneError, CorruptError, DataError, MismatchError, UsageError
from causalprune.base.files import make_directory, remove_partials
from causalprune.base.json_files import read_json, write_json
from causalprune.base.locks import FileLock
from causalprune.base.options import Options
from causalprune.base.paths import lock_path
from causalprune.models.checkpoint import software_versions

SCHEMA_VERSION = 1

THE_SAME = "no such file, or the result of this very configuration and input"


def done_already(
    subject: str,
    wanted: object,
    find: Callable[[], object],
    *,
    overwrite: bool,
    expected: str = THE_SAME,
    found: str | Callable[[], str] = "another",
    remedy: str,
    error: type[CausalpruneError] = MismatchError,
) -> bool:
    """Whether what a command would make is there already, made by the very same work.

    Args:
        subject: Where, for the message.
        wanted: Identifies the work: most often :func:`identity_of` it.
        find: Identifies the work that made what is there, None if nothing is there. Not called to overwrite.
        overwrite: Whether anything may be replaced.
        expected: What may be there, for the message.
        found: What is there instead, for the message.
        remedy: What to do about it, for the message.
        error: What is raised.

    Raises:
        CausalpruneError: ``error``: something else is there, and may not be replaced.
    """
    there = None if overwrite else find()
    if there is None or there == wanted:
        return there is not None
    raise error(subject, expected=expected, found=found if isinstance(found, str) else found(), remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage did; each stage adds its own fields.

    Attributes:
        stage: Its name.
        inputs: Hash of each input by its role.
        outputs: Path of each output by its role.
        already_done: True when the outputs were there, made by the same configuration from the same inputs.
        seconds: Wall time.
    """

    stage: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    already_done: bool = False
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``--json`` and of the result file."""
        value = asdict(self)
        common = {name: value.pop(name) for name in ("stage", "inputs", "outputs", "already_done", "seconds")}
        return {
            "schema_version": SCHEMA_VERSION,
            "stage": common["stage"],
            "inputs": common["inputs"],
            "outputs": common["outputs"],
            "already_done": common["already_done"],
            "metrics": value,
            "timings": {"seconds": round(common["seconds"], 3)},
            "versions": software_versions(),
            "job": batch_job(),
        }


def batch_job() -> dict[str, str]:
    """The SLURM job that this process belongs to: its number, its place in an array, how often it was restarted."""
    names = {"SLURM_JOB_ID": "job_id", "SLURM_ARRAY_TASK_ID": "array_task_id", "SLURM_RESTART_COUNT": "restart_count"}
    return {name: os.environ[variable] for variable, name in names.items() if variable in os.environ}


def identity_of(stage: str, config: Options, inputs: Mapping[str, str]) -> str:
    """Hash of everything that decides a stage's result: its name, its configuration, its inputs."""
    value = {"stage": stage, "config": config.identity_fields(), "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_result(path: Path, value: dict[str, Any]) -> None:
    """Write a result file; the caller holds the lock of what it belongs to.

    Raises:
        StorageError: The file system refused.
    """
    make_directory(path.parent)
    remove_partials(path.parent, path.name)
    write_json(path, value)


def read_result(path: Path) -> dict[str, Any]:
    """A stage's result; empty where there is none, or another file.

    Raises:
        StorageError: The file system refused.
    """
    try:
        value = read_json(path)
    except (CorruptError, DataError):
        return {}
    known = isinstance(value, dict) and isinstance(value.get("stage"), str) and isinstance(value.get("metrics"), dict)
    return value if known else {}


def require_replaceable(path: Path, stage: str, *, overwrite: bool) -> None:
    """Check, before the work, that the result of a stage that measures anew may go to ``path``.

    Raises:
        UsageError: A directory.
        MismatchError: Another file than an earlier result of this stage.
    """
    if path.is_dir():
        raise UsageError("result", expected="a file to write", found=f"the directory {path}")
    done_already(
        f"{path}",
        stage,
        lambda: read_result(path).get("stage", "") if path.exists() else None,
        overwrite=overwrite,
        expected=f"no such file, or an earlier result of {stage}",
        found="another file",
        remedy="move it away or name another output, or pass --overwrite to replace it",
    )


def publish(path: Path, result: StageResult, *, overwrite: bool) -> None:
    """Write the result of a stage that measures anew, in the place of its own earlier one.

    Raises:
        LockedError: Another process is writing it.
        CausalpruneError: As for :func:`require_replaceable`.
    """
    make_directory(path.parent)
    with FileLock(lock_path(path)):
        require_replaceable(path, result.stage, overwrite=overwrite)
        write_result(path, result.to_json())


def check_distinct(output: Path, *inputs: Path) -> None:
    """Refuse an output path that is also an input's or another output's, or lies within one that is a directory.

    Raises:
        UsageError: It is.
    """
    for path in inputs:
        if output.resolve().is_relative_to(path.resolve()):
            expected = "neither an input nor another output"
            raise UsageError("output path", expected=expected, found=str(output), remedy="name another")
