"""Runs the steps of a sweep, each once, in a folder of its own, by the first process that needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from causalprune.analysis.plots.histograms import gamma_summary
from causalprune.base.errors import CausalpruneError, CorruptError, DataError, MismatchError, NumericalError, UsageError
from causalprune.base.files import make_directory, remove_partials
from causalprune.base.leases import Lease
from causalprune.base.paths import RunPaths, SweepPaths
from causalprune.base.progress import Reporter
from causalprune.base.progress.schedule import Schedule
from causalprune.base.signals import note_saved
from causalprune.commands._output import require_unaltered, write_result
from causalprune.commands._schedule import as_part
from causalprune.commands.names import FUNCTIONS, with_axes
from causalprune.commands.sweep.files import DONE
from causalprune.commands.sweep.steps import Step
from causalprune.models.checkpoint import read_checkpoint_info
from causalprune.trajectory import Store

_OUTPUT = {
    "pretrain": "dense",
    "record": "recorded",
    "apply_mask": "pruned",
    "repair": "repaired",
    "posttrain": "final",
}
"""The checkpoint that each stage writes, as a property of :class:`RunPaths`."""

CELL_ERRORS = (UsageError, DataError, MismatchError, NumericalError)
"""Errors caused by the settings of a cell, and not by the place where the sweep works."""


@dataclass
class StepRunner:
    """Runs the steps of cells, each once, and finds their results.

    Attributes:
        paths: The sweep's files.
        shared: Keys of the steps that more than one cell needs.
        break_lock: Passed on to the leases.
        schedule: The steps by their keys, whose progress it notes.
        varied: Options that the sweep varies, as ``STAGE.OPTION`` or by the name of one of run.
        cell: What the cell that is measured is called in it.
        made: How many steps of each stage this process ran.
        failed: The errors of failed steps, which aren't tried again for other cells.
        given: The metrics of results that were given, each read once.
    """

    paths: SweepPaths
    shared: frozenset[str]
    break_lock: bool
    schedule: Schedule
    varied: tuple[str, ...] = ()
    cell: str = ""
    made: Counter[str] = field(default_factory=Counter)
    failed: dict[str, CausalpruneError] = field(default_factory=dict)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)

    def folder(self, step: Step, cell: str) -> Path:
        """Where a step works: among the shared steps if other cells may need it, else in the folder of its cell."""
        if step.given:
            return step.given[0]
        shared = self.paths.shared(step.key)
        # It may have been shared with cells that the grid had before it was changed.
        if step.common or step.key in self.shared or (shared / DONE).exists():
            return shared
        return self.paths.work(cell) / step.key

    def run(self, step: Step, cell: str, reporter: Reporter) -> Path:
        """Run a step and the steps that it needs, unless they are done already.

        Args:
            step: The step.
            cell: The cell that needs it.
            reporter: Shows progress.

        Returns:
            The folder of the step; :meth:`result` reads the result of its stage.

        Raises:
            LockedError: Another process is running it or a step that it needs.
            CausalpruneError: Whatever the stage raises.
        """
        folder = self.folder(step, cell)
        if step.given or (folder / DONE).exists():
            self.schedule.skip(step.key)
            return folder
        if step.key in self.failed:
            raise self.failed[step.key]
        inputs = {role: self.run(source, cell, reporter) for role, source in step.inputs}
        make_directory(folder)
        with self._leases(step, folder):
            if not (folder / DONE).exists():
                remove_partials(folder, DONE)
                fits = step.stage == "fit_gamma"
                config: Any = replace(cast(Any, step.config), run=folder, **self._sources(step, inputs))
                try:
                    # Other processes may write other fits to the same store at the same time; wait for them.
                    how = {"patient": True} if fits else {}
                    command = partial(FUNCTIONS.load(step.stage.replace("_", "-")), config, reporter, **how)
                    labeled, reworded = partial(self._labeled, step.name), partial(self._reworded, folder)
                    with self.schedule.step(step.key, f"{self.cell} · {step.name}"):
                        result = as_part(step.name, command, labeled, reworded).to_json()
                except CELL_ERRORS as error:
                    self.failed[step.key] = error
                    raise
                if fits:
                    result["gamma"] = _gamma_summary(inputs["store"], result["metrics"]["recording"], config.name)
                write_result(folder / DONE, result)
                note_saved()
                self.made[step.stage] += 1
        return folder

    def _labeled(self, stage: str, message: str) -> str:
        """A warning with the cell in front, unless it has that already."""
        label = f"[{self.cell.removeprefix('cell ')}] "
        return message if message.startswith(label) else f"{label}{stage}: {message}"

    def _reworded(self, folder: Path, message: str) -> str:
        """What a step says, as a sweep takes its options; there is nothing that overwrites a step but its deletion."""
        return with_axes(message.replace("pass `overwrite`", f"remove {folder}"), self.varied)

    @contextmanager
    def _leases(self, step: Step, folder: Path) -> Iterator[None]:
        """The lease of a step's folder, and that of its fit if the fit goes into a store that other sweeps may use."""
        with ExitStack() as stack:
            stack.enter_context(Lease(folder.with_name(f".{folder.name}.lock"), break_lock=self.break_lock))
            given = step.input("store").given if step.stage == "fit_gamma" else None
            if given:
                store = RunPaths(given[0]).store
                place = store.with_name(f".{store.name}.{step.key}.lock")
                stack.enter_context(Lease(place, break_lock=self.break_lock))
            yield

    def result(self, step: Step, cell: str) -> dict[str, Any]:
        """The result of a step that is done."""
        if step.given:
            if step.key not in self.given:
                self.given[step.key] = _given_metrics(step.stage, RunPaths(step.given[0]))
            return {"metrics": self.given[step.key]}
        path = self.folder(step, cell) / DONE
        result = require_unaltered(path)
        if not result:
            raise CorruptError(f"{path}", expected=f"the result of {step.stage}", found="something else")
        return result

    def checkpoint(self, step: Step, cell: str) -> Path:
        """The path of the checkpoint of a step that is done."""
        return _checkpoint(step, self.folder(step, cell))

    def _sources(self, step: Step, folders: Mapping[str, Path]) -> dict[str, Any]:
        """The paths in a stage's configuration: each input by its name, each output at its default."""
        paths: dict[str, Any] = {}
        for role, folder in folders.items():
            if role == "store":
                paths["store"] = RunPaths(folder).store
            elif role == "fit":
                paths["fit"] = step.input("fit").key
            elif role != "reference":
                paths["rewind_from" if role == "rewind" else role] = _checkpoint(step.input(role), folder)
        if step.stage == "fit_gamma":
            paths["name"] = step.key
        elif step.stage == "record":
            paths["store"] = None
        # The outputs named by the plan of a pipeline belong to its own run directory.
        return {**paths, "output": None} if hasattr(step.config, "output") else paths


def _given_metrics(stage: str, paths: RunPaths) -> dict[str, Any]:
    """The metrics of a given result that the table needs, as the stage that made it would report them."""
    if stage == "pretrain":
        return {"validation": read_checkpoint_info(paths.dense).metrics.get("validation", {"loss": None})}
    reader = Store.open(paths.store).recording()
    return {"rows": reader.num_rows, "mean_loss_change": float(reader.loss_change.mean())}


def _checkpoint(step: Step, folder: Path) -> Path:
    path: Path = getattr(RunPaths(folder), _OUTPUT[step.stage])
    return path


def _gamma_summary(folder: Path, recording: str, name: str) -> dict[str, Any]:
    arrays = Store.open(RunPaths(folder).store).recording(recording).read_fit(name).arrays
    return gamma_summary(arrays["gamma"].ravel(), arrays["dual_correlation"].ravel())
