"""The checkpoint that a command writes: made once, by one process at a time, and resumed after an interruption."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from causalprune.base.compute.runtime import processes
from causalprune.base.errors import CorruptError, DataError, InterruptedStage, MismatchError, NewerFormatError
from causalprune.base.files import (
    log_line,
    make_directory,
    remove_file,
    remove_partials,
    require_replaceable,
    require_writable,
)
from causalprune.base.json_files import sha256_file
from causalprune.base.locks import FileLock
from causalprune.base.paths import RunPaths, fallback_path, lock_path, logs_path, mask_path, progress_path, result_path
from causalprune.base.progress import Reporter
from causalprune.base.signals import StopRequest, note_saved, stop_requests, stop_signals
from causalprune.commands._output import StageResult, Work, batch_job, done_already, require_room_for_mask, write_result
from causalprune.commands._said import difference
from causalprune.commands.provenance.sources import changed_sources, current_sources
from causalprune.models.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    read_checkpoint_info,
    save_checkpoint,
    save_state,
    software_versions,
)
from causalprune.models.file_pair import find_mask, settle
from causalprune.models.names import default_model
from causalprune.training.logs.log import OpenLog, remove_logs
from causalprune.training.names import LOGS, NO_LOG

R = TypeVar("R", bound=StageResult)


@dataclass(kw_only=True)
class CheckpointOutput(Work):
    """The work of a command that writes a checkpoint.

    Attributes:
        default: Where the network goes unless ``output`` names another file; its mask goes beside it.
        path: Where it goes.
        stop: Whether a signal came while this output was :meth:`exclusive`.
        ancestors: Hashes of the weights of all checkpoints that it is made from, the latest last.
        sources: Hashes of the user's code and data files that it is made with.
    """

    default: Path
    path: Path = field(init=False)
    stop: StopRequest = field(default_factory=StopRequest, init=False)
    ancestors: list[str] = field(default_factory=list, init=False)
    sources: dict[str, str] = field(default_factory=dict, init=False)
    _sha256: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.path = self.config.output or self.default
        self.outputs = {"checkpoint": self.path}
        # The newest saved state, and the one before it in case that one is damaged.
        self._progress, self._fallback = progress_path(self.path), fallback_path(self.path)

    def load_checkpoint(self, path: Path, *, made_by: str = "", role: str = "checkpoint") -> Checkpoint:
        """Load an input as :meth:`Work.load_checkpoint` does; it becomes an ancestor of the output."""
        checkpoint = super().load_checkpoint(path, made_by=made_by, role=role)
        self.add_ancestors(*checkpoint.info.ancestors, checkpoint.weights_digest)
        if role == "checkpoint":
            self.sources = current_sources(checkpoint.info, self.config)
        return checkpoint

    def load_dense(self, path: Path, pruned: Checkpoint, source: Path, *, or_itself: bool = False) -> Checkpoint:
        """Load the network that a pruned one was before it was pruned; it is an input and an ancestor, too.

        Args:
            path: Where it is.
            pruned: The pruned network.
            source: Its path, for messages.
            or_itself: Whether the pruned network itself will do, too.

        Raises:
            MismatchError: Another network, or one of other data.
        """
        dense = self.load_checkpoint(path, made_by="pretrain", role="dense")
        mine, its = pruned.info, dense.info
        # Those of version 0.1 don't know their ancestors, and nobody those of foreign weights that pretrain took over.
        is_ancestor = not mine.ancestors or dense.weights_digest in mine.ancestors
        is_ancestor |= or_itself and dense.weights_digest == pruned.weights_digest
        is_of_the_data = mine.data_fingerprint == its.data_fingerprint
        if not (is_ancestor and is_of_the_data and mine.model == its.model):
            raise MismatchError(
                f"{path}",
                expected=f"a network that {source} was before it was pruned",
                found=f"another, {its.model.name}" + ("" if is_of_the_data else " trained on other data"),
                remedy="name it as `dense`",
            )
        return dense

    def add_ancestors(self, *weights: str) -> None:
        """Add hashes of weights that the output is made from."""
        self.ancestors += [one for one in dict.fromkeys(weights) if one not in self.ancestors]

    def finished(self) -> CheckpointInfo | None:
        """The header of the output if the very same work is done already, else None.

        Raises:
            MismatchError: The output exists and is the result of other work, or of other code or data. Or something
                else lies where its mask belongs.
            DataError: Its mask is gone.
        """
        exists = self.path.exists() and not self.config.overwrite
        info = read_checkpoint_info(self.path) if exists else None
        changed = [] if info is None else changed_sources(info.sources, self.sources)
        done_already(
            f"{self.path}",
            True,
            info and self._is_same_work(info) and not changed,
            found=f"a result of {self._difference(info)}" if info else "",
            remedy="pass `overwrite` to replace it, or choose another `run`",
        )
        if info is None:
            require_room_for_mask(self.path, overwrite=self.config.overwrite)
        else:
            self._found_whole(info)
        return info

    def _found_whole(self, info: CheckpointInfo) -> None:
        """Note the files of a network that is there, if its mask is there, too."""
        if info.mask_digest:
            self._sha256 = self._sha256 or sha256_file(self.path)
            self.outputs = {**self.outputs, "mask": find_mask(self.path, self._sha256)}

    def _is_same_work(self, info: CheckpointInfo) -> bool:
        return self.is_done_by(vars(info), model=default_model(info.model.input_shape))

    @contextmanager
    def exclusive(self, *, saves_state: bool = True) -> Iterator[None]:
        """Be the only process that writes this output; if a signal ends the work, write that into the log.

        Args:
            saves_state: Whether the body looks at :attr:`stop` and saves its state; else a signal ends it at once.

        Raises:
            LockedError: Another process is writing it.
        """
        group = processes()
        # Deferred where a state is saved, or an interruption while it is read would look like a damaged file.
        listen = stop_requests if saves_state else stop_signals
        with listen(self.config.stop_signals) as self.stop, ExitStack() as stack:

            def enter() -> None:
                make_directory(self.path.parent)
                require_replaceable(self.path)
                stack.enter_context(FileLock(lock_path(self.path)))
                remove_partials(self.path.parent, self.path.name, mask_path(self.path).name, self._progress.name)
                settle(self.path)
                require_writable(self._result_path)

            group.first(enter)
            try:
                yield
            except InterruptedStage as stop:
                if group.is_first:
                    self._log("interrupted", str(stop))
                raise

    @property
    def has_saved_state(self) -> bool:
        """Whether there is a state that an attempt may resume from."""
        return self._progress.exists() or self._fallback.exists()

    def resume(self, reporter: Reporter, fits: Callable[[Checkpoint], bool]) -> Checkpoint | None:
        """The newest usable state that an earlier, interrupted attempt at the very same work saved.

        Args:
            reporter: Warns about a state that can't be used.
            fits: Whether a state goes with the other files that exist.

        Raises:
            MismatchError: The saved state of another configuration, and ``overwrite`` is not set.
        """
        for path in (self._progress, self._fallback):
            if not path.exists():
                continue
            try:
                checkpoint = load_checkpoint(path)
            except NewerFormatError:
                raise
            except (CorruptError, DataError) as error:
                reporter.warn(f"{error}; not resuming from it")
                continue
            if not self._is_same_work(checkpoint.info):
                if self.config.overwrite:
                    continue
                raise MismatchError(
                    f"{path}",
                    expected="the saved state of this very configuration and input",
                    found=f"that of {self._difference(checkpoint.info)}",
                    remedy="run the interrupted command again, or pass `overwrite` to start anew",
                )
            if not fits(checkpoint):
                reporter.warn(f"{path} doesn't go with what else is there; not resuming from it")
                continue
            now, then = software_versions(), checkpoint.info.versions
            changed = [f"{name} {then.get(name)} → {now[name]}" for name in now if then.get(name) != now[name]]
            if changed:
                reporter.warn(f"resuming with other versions, so not bit for bit: {', '.join(changed)}")
            for what in changed_sources(checkpoint.info.sources, self.sources):
                reporter.warn(f"the {what} has changed since {path} was saved: the rest is made with what is there now")
            return checkpoint
        return None

    def open_log(self, *, anew: bool) -> OpenLog | None:
        """How the stage opens its log; None if it writes none.

        Args:
            anew: Whether the work begins anew: what an earlier one logged is deleted then.
        """
        folder = logs_path(self.path)
        if anew:
            processes().first(lambda: remove_logs(folder))
        return None if self.config.log == NO_LOG else partial(LOGS.load(self.config.log), folder)

    def save(self, checkpoint: Checkpoint) -> CheckpointInfo:
        """Write the output with the provenance filled in; returns its header as read back."""
        self._sha256 = save_checkpoint(self.path, self._signed(checkpoint))
        info = read_checkpoint_info(self.path)
        self._found_whole(info)
        note_saved()
        return info

    def save_progress(self, checkpoint: Checkpoint) -> None:
        """Save the state of the work for a resume, and keep the state before it; older ones are deleted."""
        save_state(self._progress, self._signed(checkpoint), previous=self._fallback)
        note_saved()

    def _signed(self, checkpoint: Checkpoint) -> Checkpoint:
        info = replace(
            checkpoint.info,
            stage=self.stage,
            config=self.config.identity_fields(),
            identity=self.identity,
            inputs=self.inputs,
            ancestors=self.ancestors,
            sources=self.sources,
        )
        return replace(checkpoint, info=info)

    def publish(self, result: R) -> R:
        """In the first process, write the result file and a line of the log, and delete the saved states.

        If the work was done already, only the part of this that a crash prevented is made up for.
        """
        processes().first(lambda: self._publish(result))
        return result

    def _publish(self, result: StageResult) -> None:
        path = self._result_path
        if not (result.already_done and path.exists()):
            hashes = {
                "sha256": self._sha256 or sha256_file(self.path),
                "header": read_checkpoint_info(self.path).checksum,
            }
            write_result(path, {**result.to_json(), **hashes})
            self._log("finished")
        # The older state first: alone, it would look like the newest.
        for saved in (self._fallback, self._progress):
            remove_file(saved, missing_ok=True)

    @property
    def _result_path(self) -> Path:
        return result_path(RunPaths(self.config.run), self.stage, self.path, self.default)

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
        log_line(run.log, json.dumps(line))

    def _difference(self, info: CheckpointInfo) -> str:
        """What the work that made another checkpoint has that this work hasn't."""
        if info.stage != self.stage:
            return f"the stage {info.stage or 'unknown'}"
        if self._is_same_work(info):
            return f"the {' and the '.join(changed_sources(info.sources, self.sources))} before a change"
        mine, theirs = self.config.identity_fields(), self.config.written_out(info.config)
        if changed := difference(type(self.config), theirs, mine):
            return f"another configuration ({changed})"
        roles = {**self.inputs, **info.inputs}
        others = [role for role in roles if info.inputs.get(role) != self.inputs.get(role)]
        return "another input (" + ", ".join(others) + ")" if others else "another version"
