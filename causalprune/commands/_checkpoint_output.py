"""The checkpoint that a command writes: made once, by one process at a time, and taken up after an interruption."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from causalprune.base.errors import (
    CorruptError,
    DataError,
    InterruptedStage,
    MismatchError,
    NewerFormatError,
)
from causalprune.base.files import append_line, make_directory, remove_file, remove_partials
from causalprune.base.json_files import sha256_file
from causalprune.base.locks import FileLock
from causalprune.base.paths import RunPaths, fallback_path, lock_path, progress_path, result_path
from causalprune.base.progress import Reporter
from causalprune.base.runtime import processes
from causalprune.base.signals import stop_requests
from causalprune.commands._output import StageResult, batch_job, done_already, identity_of, write_result
from causalprune.models.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    read_checkpoint_info,
    save_checkpoint,
    software_versions,
)


@dataclass
class CheckpointOutput:
    """The checkpoint that a stage is to write.

    Attributes:
        stage: The stage's name.
        config: Its configuration.
        path: Where the checkpoint goes.
        default: Where it would go if no path were given.
        inputs: Hash of each input by its role.
    """

    stage: str
    config: Any
    path: Path
    default: Path
    inputs: dict[str, str]
    started: float = field(default_factory=time.monotonic)
    _sha256: str = ""

    @property
    def identity(self) -> str:
        """See :func:`identity_of`."""
        return identity_of(self.stage, self.config, self.inputs)

    @property
    def progress(self) -> Path:
        """Where the stage saves its state for a resume."""
        return progress_path(self.path)

    @property
    def fallback(self) -> Path:
        """Where the saved state before that one is kept."""
        return fallback_path(self.path)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.started

    def finished(self) -> CheckpointInfo | None:
        """The output's header if the very same work is done already, None if it is yet to do.

        Raises:
            MismatchError: The output exists and is another one.
        """
        info: CheckpointInfo | None = None

        def find() -> str | None:
            nonlocal info
            info = read_checkpoint_info(self.path) if self.path.exists() else None
            return info.identity if info else None

        done_already(
            f"{self.path}",
            self.identity,
            find,
            overwrite=self.config.overwrite,
            found=lambda: f"a result of {_difference(self, info)}" if info else "",
            remedy="pass --overwrite to replace it, or choose another --run",
        )
        return info

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only process that writes this output, and say in the log how it ended if a signal ended it.

        Raises:
            LockedError: Another process is writing it.
        """
        group = processes()
        # Deferred: an interruption may not pass for a damaged file while a saved state is read.
        with stop_requests(self.config.stop_signals), ExitStack() as stack:

            def enter() -> None:
                make_directory(self.path.parent)
                stack.enter_context(FileLock(lock_path(self.path)))
                remove_partials(self.path.parent, self.path.name, self.progress.name)

            group.first(enter)
            try:
                yield
            except InterruptedStage as stop:
                if group.is_first:
                    self._log("interrupted", str(stop))
                raise

    def resume(self, reporter: Reporter, fits: Callable[[Checkpoint], bool] = lambda _: True) -> Checkpoint | None:
        """The newest usable state that an earlier, interrupted attempt at the very same work saved.

        Args:
            reporter: Told of a state that isn't used.
            fits: Whether a state goes with everything else that is there.

        Raises:
            MismatchError: A saved state of another configuration, and no leave to overwrite it.
        """
        for path in (self.progress, self.fallback):
            if not path.exists():
                continue
            try:
                checkpoint = load_checkpoint(path)
            except NewerFormatError:
                raise
            except (CorruptError, DataError) as error:
                reporter.warn(f"{error}; not resuming from it")
                continue
            if checkpoint.info.identity != self.identity:
                if self.config.overwrite:
                    continue
                raise MismatchError(
                    f"{path}",
                    expected="the saved state of this very configuration and input",
                    found=f"that of {_difference(self, checkpoint.info)}",
                    remedy="run the interrupted command again, or pass --overwrite to start anew",
                )
            if not fits(checkpoint):
                reporter.warn(f"{path} doesn't go with what else is there; not resuming from it")
                continue
            now, then = software_versions(), checkpoint.info.versions
            changed = [f"{name} {then.get(name)} → {now[name]}" for name in now if then.get(name) != now[name]]
            if changed:
                reporter.warn(f"resuming with other versions, so not bit for bit: {', '.join(changed)}")
            return checkpoint
        return None

    def save(self, checkpoint: Checkpoint) -> CheckpointInfo:
        """Write the output with this stage's provenance filled in; returns its header as it was read back."""
        self._sha256 = save_checkpoint(self.path, self._signed(checkpoint))
        return read_checkpoint_info(self.path)

    def save_progress(self, checkpoint: Checkpoint) -> None:
        """Save the stage's state for a resume, and keep the one before it; older ones go."""
        save_checkpoint(self.progress, self._signed(checkpoint), previous=self.fallback)

    def _signed(self, checkpoint: Checkpoint) -> Checkpoint:
        info = replace(
            checkpoint.info,
            stage=self.stage,
            config=self.config.identity_fields(),
            identity=self.identity,
            inputs=self.inputs,
        )
        return replace(checkpoint, info=info)

    def common(self, *, already_done: bool = False) -> dict[str, Any]:
        """The fields that every result has."""
        return {
            "stage": self.stage,
            "inputs": self.inputs,
            "outputs": {"checkpoint": str(self.path)},
            "already_done": already_done,
            "seconds": self.seconds,
        }

    def publish(self, result: StageResult) -> None:
        """Write the result file, with the output's hash, and a line of the log, and drop the saved states.

        If the work was done already, only what is missing of that because a crash came between the output and its end.
        """
        if not (result.already_done and self._result.exists()):
            write_result(self._result, {**result.to_json(), "sha256": self._sha256 or sha256_file(self.path)})
            self._log("finished")
        self._drop_progress()

    @property
    def _result(self) -> Path:
        return result_path(RunPaths(self.config.run), self.stage, self.path, self.default)

    def _drop_progress(self) -> None:
        # The older one first: alone, it would look like the newest.
        for saved in (self.fallback, self.progress):
            remove_file(saved, missing_ok=True)

    def _log(self, event: str, message: str = "") -> None:
        run = RunPaths(self.config.run)
        make_directory(run.root)
        line = {
            "time": time.time(),
            "event": event,
            "stage": self.stage,
            "output": str(self.path),
            "seconds": round(self.seconds, 3),
            **({"message": message} if message else {}),
            **batch_job(),
        }
        append_line(run.log, json.dumps(line))


def _difference(output: CheckpointOutput, info: CheckpointInfo) -> str:
    if info.stage != output.stage:
        return f"the stage {info.stage or 'unknown'}"
    mine = output.config.identity_fields()
    names = [f"{k}={info.config.get(k)!r}" for k in mine if info.config.get(k) != mine[k]]
    if names:
        return "another configuration (" + ", ".join(names[:3]) + (", …" if len(names) > 3 else "") + ")"
    changed = [role for role, digest in output.inputs.items() if info.inputs.get(role) != digest]
    return "another input (" + ", ".join(changed) + ")" if changed else "another version"
