"""The JSON file of a stage's result, and the rule of stages that measure anew: they replace nothing but their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causalprune.base.locks import FileLock
from causalprune.errors import CorruptError, DataError, MismatchError, UsageError
from causalprune.files import make_directory, read_json, remove_partials, write_json
from causalprune.paths import lock_path
from causalprune.stages.result import StageResult


def require_replaceable(path: Path, stage: str, *, overwrite: bool) -> None:
    """Check, before the work, that the result of a stage that measures anew may go to ``path``.

    Args:
        path: The result file.
        stage: The stage, whose own earlier result may be replaced.
        overwrite: Whether there is leave to replace any file.

    Raises:
        UsageError: A directory.
        MismatchError: Another file.
    """
    if path.is_dir():
        raise UsageError("result", expected="a file to write", found=f"the directory {path}")
    if overwrite or not path.exists() or read_result(path).get("stage") == stage:
        return
    raise MismatchError(
        f"{path}",
        expected=f"no such file, or an earlier result of {stage}",
        found="another file",
        remedy="move it away or name another output, or pass --overwrite to replace it",
    )


def publish(path: Path, result: StageResult, *, overwrite: bool) -> None:
    """Write the result of a stage that measures anew, in the place of its own earlier one.

    Args:
        path: The result file.
        result: The result.
        overwrite: Whether there is leave to replace any file.

    Raises:
        LockedError: Another process is writing it.
        CausalpruneError: As for :func:`require_replaceable`.
    """
    make_directory(path.parent)
    with FileLock(lock_path(path)):
        require_replaceable(path, result.stage, overwrite=overwrite)
        write_result(path, result.to_json())


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
