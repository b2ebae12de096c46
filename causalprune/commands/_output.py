"""The result that each command returns, and the rule for what exists already.

Finished work is skipped, and nothing is overwritten without ``--overwrite``. Before it starts, a command asks
:func:`done_already` with what identifies the earlier result: the header of a checkpoint, the attributes of a fit, a
result file, ``run.json``, the recording of a merged store. A command that measures anew each time replaces its
own earlier result (:func:`require_replaceable`, :func:`publish`). The steps and cells of a sweep are named by the hash
of what decides their result, so they are done as soon as their file exists.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.base import files
from causalprune.base.errors import CausalpruneError, CorruptError, DataError, MismatchError, UsageError
from causalprune.base.files import make_directory, remove_partials
from causalprune.base.json_files import decode_json, encode_json, is_sealed, read_json, seal, write_json
from causalprune.base.locks import FileLock
from causalprune.base.options import same_options
from causalprune.base.paths import RunPaths, StoreUrl, is_mask_path, lock_path, mask_path, meant_path, real_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands.names import with_flags
from causalprune.commands.provenance.sources import changed_sources, code_of
from causalprune.models.checkpoint import Checkpoint, load_checkpoint, software_versions
from causalprune.models.file_pair import named_network

if TYPE_CHECKING:
    from causalprune.trajectory import RecordingReader

SCHEMA_VERSION = 2
"""Version of ``--json`` and of result files; since 2, a file carries a seal and a result its warnings."""

_SEAL = "seal"


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The result of a command; each command adds its own fields.

    Attributes:
        stage: Name of the command.
        inputs: Hash of each input by its role.
        outputs: Path of each output by its role.
        already_done: Whether the outputs existed, made by the same configuration from the same inputs.
        seconds: Wall time.
        warnings: What the user should know about the result, with options in backticks.
    """

    stage: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    already_done: bool = False
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``--json`` and of the result file."""
        metrics = asdict(self)
        common = {name: metrics.pop(name) for name in ("stage", "inputs", "outputs", "already_done", "warnings")}
        return {
            "schema_version": SCHEMA_VERSION,
            **common,
            "warnings": [with_flags(warning) for warning in common["warnings"]],
            "timings": {"seconds": round(metrics.pop("seconds"), 3)},
            "metrics": metrics,
            "versions": software_versions(),
            "job": batch_job(),
        }


@dataclass(kw_only=True)
class Work:
    """The work of one command: what it reads and writes, and since when.

    Attributes:
        stage: Name of the command.
        config: Its configuration.
        inputs: Hash of each input by its role.
        also: Other hashes by role that an input has had, such as a recording before it was compacted.
        outputs: Path of each output by its role.
        started: :func:`time.monotonic` at the start.
        warnings: What the user was warned of, see :meth:`warn`.
    """

    stage: str
    config: Any
    inputs: dict[str, str] = field(default_factory=dict)
    also: dict[str, frozenset[str]] = field(default_factory=dict)
    outputs: Mapping[str, Path | StoreUrl] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    warnings: list[str] = field(default_factory=list)

    def warn(self, reporter: Reporter, *messages: str) -> None:
        """Warn the user of the result, now and in the result itself."""
        for message in messages:
            reporter.warn(message)
            self.warnings.append(message)

    def note(self, reporter: Reporter, *messages: str) -> None:
        """Tell the user what was decided about the data, now and in the result itself."""
        for message in messages:
            reporter.note(message)
            self.warnings.append(message)

    @property
    def identity(self) -> str:
        """Hash of everything that decides the result: the command's name, its configuration, its inputs."""
        value = {"stage": self.stage, "config": self.config.identity_fields(), "inputs": self.inputs}
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def is_done_by(self, stored: Mapping[str, Any], **unsaid: Any) -> bool:
        """Whether a result was made by the very same work, though its options may be said in another way.

        An earlier version may have lacked options that have their defaults now.

        Args:
            stored: ``stage``, ``identity``, ``config`` and ``inputs`` as a checkpoint or a fit has them.
            unsaid: What options stand for that are left out, where the inputs decide that.
        """
        if stored["identity"] == self.identity:
            return True
        if stored["stage"] != self.stage or not isinstance(stored["config"], dict):
            return False
        if not self.has_inputs(stored["inputs"]):
            return False
        return same_options(self.config.written_out(stored["config"]), self.config.identity_fields(), unsaid)

    def has_inputs(self, inputs: Any) -> bool:
        """Whether a result was made from the same inputs, though one may have been laid out anew since."""
        if not isinstance(inputs, Mapping) or inputs.keys() != self.inputs.keys():
            return False
        return all(inputs[role] in (own, *self.also.get(role, ())) for role, own in self.inputs.items())

    def add_recording(self, reader: RecordingReader, role: str = "recording") -> None:
        """Note a recording as an input, also as what it was before it was compacted."""
        self.inputs[role] = reader.digest
        self.also[role] = reader.digests

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.started

    def load_checkpoint(self, path: Path, *, made_by: str = "", role: str = "checkpoint") -> Checkpoint:
        """Load an input, and note its hash.

        Args:
            path: Where it is.
            made_by: The command to run if there is none.
            role: What it is for.

        Raises:
            DataError: Nothing there, or an empty file.
            CausalpruneError: See :func:`causalprune.models.checkpoint.load_checkpoint`.
        """
        # A path that is that of the run directory anyway was perhaps named, too.
        other = f"name another checkpoint{_such_as(path)}" if role == "checkpoint" else f"name a `{role}`"
        remedy = f"run `causalprune {made_by}` first, or {other}" if made_by else ""
        if getattr(self.config, role, None) is not None:
            remedy = meant_path(path, "*.safetensors") or "check the path"
        elif not path.parent.is_dir():
            remedy = meant_path(path) or remedy
        checkpoint = load_checkpoint(path, remedy=remedy)
        self.inputs[role] = checkpoint.sha256
        for what in changed_sources(checkpoint.info.sources, code_of(checkpoint.info)):
            self.warn(SILENT, f"the {what} has changed since {path} was made: it may be another network now")
        return checkpoint

    def common(self, *, already_done: bool = False) -> dict[str, Any]:
        """The fields that every result has."""
        return {
            "stage": self.stage,
            "inputs": self.inputs,
            "outputs": {role: str(path) for role, path in self.outputs.items()},
            "already_done": already_done,
            "seconds": self.seconds,
            "warnings": tuple(self.warnings),
        }


def batch_job() -> dict[str, str]:
    """The SLURM job of this process: its number, its place in an array, how often it was restarted."""
    names = {"SLURM_JOB_ID": "job_id", "SLURM_ARRAY_TASK_ID": "array_task_id", "SLURM_RESTART_COUNT": "restart_count"}
    return {name: os.environ[variable] for variable, name in names.items() if variable in os.environ}


def done_already(
    subject: str,
    wanted: object,
    existing: object,
    *,
    expected: str = "no such file, or the result of this very configuration and input",
    found: str = "another",
    remedy: str,
    error: type[CausalpruneError] = MismatchError,
) -> bool:
    """Whether the result of a command exists already, made by the very same work.

    Args:
        subject: Where the result belongs, for the message.
        wanted: Identifies the work, usually :attr:`Work.identity`.
        existing: Identifies the work that made the existing result; None if there is no result or it may be replaced.
        expected: What may exist there, for the message.
        found: What exists instead, for the message.
        remedy: What to do about it, for the message.
        error: The class of the error.

    Raises:
        CausalpruneError: ``error``: something else exists there and may not be replaced.
    """
    if existing is None or existing == wanted:
        return existing is not None
    raise error(subject, expected=expected, found=found, remedy=remedy)


def write_result(path: Path, value: dict[str, Any]) -> None:
    """Write a result file with a seal; the caller holds the lock of the output that it describes.

    Raises:
        StorageError: The file system refused.
    """
    make_directory(path.parent)
    remove_partials(path.parent, path.name)
    # Through JSON once, so that the seal is over what a reader gets.
    write_json(path, seal(decode_json(encode_json(value), f"{path}"), _SEAL))


def read_result(path: Path) -> dict[str, Any]:
    """Read the result of a command; empty if there is no file, another kind of file, or an altered result.

    Raises:
        StorageError: The file system refused.
    """
    try:
        return require_unaltered(path)
    except (CorruptError, DataError):
        return {}


def require_unaltered(path: Path) -> dict[str, Any]:
    """Read the result of a command and compare it with its seal, which files of schema version 1 don't have.

    Returns:
        The result; empty if the file is of another kind.

    Raises:
        DataError: No file.
        CorruptError: Not JSON, or a result that was altered.
        StorageError: The file system refused.
    """
    value = read_json(path)
    kinds = {"schema_version": int, "stage": str, "metrics": dict}
    if not isinstance(value, dict) or not all(isinstance(value.get(name), kind) for name, kind in kinds.items()):
        return {}
    if (value["schema_version"] != 1 or _SEAL in value) and not is_sealed(value, _SEAL):
        raise CorruptError(
            f"{path}",
            expected=f"the result of {value['stage']} as it was written",
            found="an altered one",
            remedy="restore it, or delete it and run the same command again",
        )
    return dict(value)


def require_replaceable(path: Path, stage: str, *, overwrite: bool) -> None:
    """Check, before the work, that a command that measures anew may write its result to ``path``.

    Raises:
        UsageError: A directory.
        MismatchError: A file that isn't an earlier result of this command.
    """
    if path.is_dir():
        raise UsageError("result", expected="a file to write", found=f"the directory {path}")
    done_already(
        f"{path}",
        stage,
        read_result(path).get("stage", "") if path.exists() and not overwrite else None,
        expected=f"no such file, or an earlier result of {stage}",
        found="another file",
        remedy="move it away or name another output, or pass `overwrite` to replace it",
    )


def require_room_for_mask(network: Path, *, overwrite: bool) -> None:
    """Check, before the work, that the mask of a network may be written: over no other file than an earlier one's mask.

    Raises:
        StorageError: A device, pipe or socket.
        MismatchError: Another file.
    """
    mask = mask_path(network)
    files.require_replaceable(mask)
    if mask.exists() and not overwrite and not named_network(mask):
        raise MismatchError(
            f"{mask}",
            expected=f"no such file, or the mask of {network}",
            found="another file",
            remedy="move it away, or pass `overwrite` to replace it",
        )


def publish(path: Path, result: StageResult, *, overwrite: bool) -> None:
    """Write the result of a command that measures anew; it replaces an earlier result of the same command.

    Raises:
        LockedError: Another process is writing it.
        CausalpruneError: See :func:`require_replaceable`.
    """
    make_directory(path.parent)
    with FileLock(lock_path(path)):
        require_replaceable(path, result.stage, overwrite=overwrite)
        write_result(path, result.to_json())


def _such_as(missing: Path) -> str:
    """The pruned network beside a final one that is missing, where nothing was trained after the mask."""
    run = RunPaths(missing.parent)
    pruned = [path for path in (run.repaired, run.pruned) if path.exists()]
    return f", such as {pruned[0]}" if missing == run.final and pruned else ""


def check_distinct(output: Path, *others: Path) -> None:
    """Check that an output is neither an input nor another output, nor lies within one that is a directory.

    Where an input is a checkpoint, its mask is one, too.

    Raises:
        UsageError: It is or does.
    """
    for path in (one for other in others for one in (other, mask_path(other))):
        if real_path(output).is_relative_to(real_path(path)):
            expected = "neither an input nor another output"
            raise UsageError("output path", expected=expected, found=str(output), remedy="name another")


def check_pair_distinct(network: Path, *others: Path) -> None:
    """Check a network that is an output, and its mask, as :func:`check_distinct` does.

    Raises:
        UsageError: One of them is another file's, or the network has the name of a mask.
    """
    if is_mask_path(network):
        raise UsageError("`output`", expected="a name that doesn't end like that of a mask", found=f"{network}")
    check_distinct(network, *others)
    check_distinct(mask_path(network), *others)
