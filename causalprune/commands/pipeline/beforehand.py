"""What the stages of a pipeline would refuse, asked before the first one starts: later it would have cost hours.

A stage refuses some things whatever the stages before it make: for its options, for this machine, for the sizes of the
data set, for the shape of the network. It does so by functions that need no more than these, and here the same
functions are called for all stages of a plan. ``run``, ``run --dry-run`` and ``sweep`` have no checks of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.analysis.plots.figures import require_matplotlib
from causalprune.base.compute.runtime import processes, resolve_device
from causalprune.base.errors import UsageError
from causalprune.base.files import require_file
from causalprune.base.options import Options
from causalprune.base.paths import StoreUrl, real_path
from causalprune.base.specs import ModelSpec
from causalprune.commands._plan import IterationPlan, PipelinePlan
from causalprune.commands.apply_mask.layers import needs_network, require_budgets
from causalprune.commands.evaluate.command import require_packages
from causalprune.commands.fit_gamma import row_weights
from causalprune.commands.names import settings_in_errors
from causalprune.commands.pretrain import data_spec_of, initial_network, untrained
from causalprune.commands.record.prediction import (
    record_batches,
    recorded_columns,
    recorded_rows,
    require_recordable,
)
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.evaluate import EvaluateConfig
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.config.posttrain import PosttrainConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.config.repair import RepairConfig
from causalprune.config.shared import ModelOptions
from causalprune.data.datasets import DataSet
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.network.choice import untrained_tensors
from causalprune.pruning.network.named_layers import require_recorded
from causalprune.pruning.removable import Family, prunable_producers
from causalprune.solver.recording.planned import require_solvable
from causalprune.training.loop import training_batches
from causalprune.training.optimizers import build_lr_schedule, build_optimizer
from causalprune.trajectory.columns.planned import PlannedRecording
from causalprune.trajectory.storage import locate

_CPU = torch.device("cpu")
"""Where nothing but sizes is looked at."""

_UNASKED = frozenset({"seed", "run", "checkpoint", "output"})
"""Options that iterations and cells differ in, and that no question is about."""

_INPUTS = ("dense", "reference", "rewind_from")
"""Checkpoints that a setting may name."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a pipeline starts with, before anything is trained.

    Attributes:
        data: The data set.
        spec: What the network is.
        model: The network, on the CPU.
        mask: What of it is pruned already.
    """

    data: DataSet
    spec: ModelSpec
    model: nn.Module
    mask: Mask

    @classmethod
    def of(cls, config: PretrainConfig, dense: Checkpoint | None = None) -> Start:
        """Load the data and build the network.

        Args:
            config: What is pretrained.
            dense: The network of another run that takes the place of the pretraining.

        Raises:
            CausalpruneError: What pretrain would raise.
        """
        if dense is not None:
            _, data, spec, model = untrained(config)
            return cls(data, spec, model, dense.mask or Mask.all(dense.info.index))
        # What is to be said of them pretrain says.
        _, data, spec, model, mask = initial_network(config, _unsaid, _unsaid)
        return cls(data, spec, model, mask)


def _key(options: Options) -> Hashable:
    """What an answer about options may depend on: not on a seed, nor on where they read and write."""
    return type(options), *(getattr(options, f.name) for f in fields(options) if f.name not in _UNASKED)


def _unsaid(message: str) -> None:
    del message


def start_of(config: PretrainConfig, dense: Checkpoint | None = None) -> Hashable:
    """What plans have in common that start with the same data and the same network."""
    of_model = tuple(getattr(config, f.name) for f in fields(ModelOptions))
    return *of_model, data_spec_of(config), None if dense is None else dense.sha256


@dataclass
class Beforehand:
    """Asks the stages of one plan, or of the many that a sweep has: each question once, and of each network once.

    Attributes:
        done: Stages that aren't asked, by their keys in the plan, because they are done.
        asked: The questions that were answered.
        start: What the last plan started with, and by what it is known (:func:`start_of`). Plans with the same are to
            follow each other.
    """

    done: Collection[tuple[int, str]] = ()
    asked: set[Hashable] = field(default_factory=set)
    start: tuple[Hashable, Start] | None = None
    _recordings: dict[Hashable, PlannedRecording] = field(default_factory=dict)
    _producers: dict[Hashable, list[Family] | None] = field(default_factory=dict)

    def require_machine(self, plan: PipelinePlan) -> None:
        """Check what takes neither the data nor the network: devices, packages, files that settings name.

        Raises:
            UsageError: A device that isn't there, a package that isn't installed, or stores that don't go together.
            DataError: A file that isn't there.
        """
        with _of(plan, "record"):
            for planned in plan.iterations:
                _require_one_store(planned, len(plan.iterations))
        for key, options in plan.stages().items():
            stage, said = key[1], plan.said(key[1])
            if key in self.done or not self._is_new("machine", stage, *sorted(said), options):
                continue
            with settings_in_errors(stage, said):
                if (device := getattr(options, "device", None)) is not None:
                    resolve_device(device)
                for name in said.intersection(_INPUTS):
                    _require_input(getattr(options, name), plan)
                if isinstance(options, RecordConfig) and options.store is not None:
                    locate(options.store)
                if isinstance(options, FitGammaConfig) and options.plot is not None:
                    require_matplotlib()
                if isinstance(options, EvaluateConfig):
                    require_packages(options)

    def require(self, plan: PipelinePlan, dense: Checkpoint | None = None, *, of_sweep: bool = False) -> None:
        """Check what the data set and the network decide, before anything is trained.

        Args:
            plan: The stages.
            dense: The network of another run that takes the place of the pretraining, see :meth:`Start.of`.
            of_sweep: Whether it is a cell of a sweep, which records for any criterion, and leaves out a training of no
                epochs.

        Raises:
            UsageError: An option that doesn't go with them.
            DataError: Data that is missing, or too little of it.
            MismatchError: A network without what is to be fitted or pruned.
        """
        left = {key: options for key, options in plan.stages().items() if key not in self.done}
        if not left.keys() - {(0, "evaluate")}:
            # Nothing is read for it.
            return
        start = self._started(plan.pretrain(), dense)
        for number, planned in enumerate(plan.iterations, start=1):
            if (number, "apply-mask") in self.done:
                continue
            recording = None
            if planned.records or of_sweep:
                recording = self._require_recording(plan, planned.record, start)
            # Those after it have fewer columns, and the same options.
            if planned.fit is not None and recording is not None and number == 1:
                self.require_fit(plan, planned.fit, recording)
            self._require_mask(plan, planned.mask, start, recording)
        for (_, stage), options in left.items():
            trains = isinstance(options, PretrainConfig) and dense is None
            trains |= isinstance(options, PosttrainConfig) and (options.epochs > 0 or not of_sweep)
            if trains and self._is_new(stage, options):
                with _of(plan, stage):
                    _require_training(options, start)  # type: ignore[arg-type]

    def require_fit(self, plan: PipelinePlan, config: FitGammaConfig, recording: PlannedRecording) -> None:
        """Check that a fit of a recording, which may be there already, isn't refused for its size.

        Raises:
            CausalpruneError: See :func:`causalprune.solver.recording.planned.require_solvable`.
        """
        criterion = load_criterion(plan.iterations[0].mask.criterion)
        about = (
            criterion.name,
            recording.index.fingerprint,
            recording.num_rows,
            recording.num_columns,
            recording.momentum,
            recording.held,
        )
        if self._is_new("fit-gamma", config, *about):
            with _of(plan, "fit-gamma"):
                weights = row_weights(config, recording.num_rows)
                require_solvable(config, recording, weights, processes=processes().count)
                criterion.require_lags(lags=bool(config.lags))

    def _started(self, config: PretrainConfig, dense: Checkpoint | None) -> Start:
        key = start_of(config, dense)
        if self.start is None or self.start[0] != key:
            # Not two data sets at a time.
            self.start = None
            self.asked.clear()
            self._recordings.clear()
            self._producers.clear()
            self.start = key, Start.of(config, dense)
        return self.start[1]

    def _is_new(self, what: str, *about: Any) -> bool:
        """Whether a question wasn't asked before; no answer depends on a seed."""
        key = (what, *(_key(one) if isinstance(one, Options) else one for one in about))
        if key in self.asked:
            return False
        self.asked.add(key)
        return True

    def _require_recording(self, plan: PipelinePlan, config: RecordConfig, start: Start) -> PlannedRecording:
        key = _key(config)
        if key not in self._recordings:
            self._recordings[key] = self._planned(plan, config, start)
        return self._recordings[key]

    def _planned(self, plan: PipelinePlan, config: RecordConfig, start: Start) -> PlannedRecording:
        with _of(plan, "record"):
            mask = start.mask.among(start.model, config.prune)
            require_recordable(start.model, mask, "recording")
            batches = record_batches(config, start.model, start.data, _CPU, processes())
            _, rows = recorded_rows(config, batches)
            columns = recorded_columns(config, mask).numpy()
            return PlannedRecording.of(mask.index, columns, rows, momentum=config.momentum, held=config.hold)

    def _require_mask(
        self, plan: PipelinePlan, config: ApplyMaskConfig, start: Start, recording: PlannedRecording | None
    ) -> None:
        before = start.mask.index if recording is None else recording.index
        if not self._is_new("apply-mask", config, before.fingerprint):
            return
        plain = config.granularity in ("parameter", "layer")
        # Every network has weights and layers.
        if plain and not needs_network(config):
            return
        with _of(plan, "apply-mask"):
            index = start.mask.within(before).among(start.model, config.prune).index
            if recording is not None and load_criterion(config.criterion).reads_recording:
                require_recorded(before, index, "the recording")
            producers = self._producers_of(config.granularity, start, index)
            frozen = [] if config.prune_frozen else untrained_tensors(start.model, index, ())
            require_budgets(config, index, producers, frozen)

    def _producers_of(self, granularity: str, start: Start, index: Any) -> list[Family] | None:
        key = (granularity, index.fingerprint)
        if key not in self._producers:
            self._producers[key], _ = prunable_producers(granularity, start.model, index, start.spec)
        return self._producers[key]


def _of(plan: PipelinePlan, stage: str) -> AbstractContextManager[None]:
    """Errors in the words of the settings of a stage."""
    return settings_in_errors(stage, plan.said(stage))


def _require_training(options: PretrainConfig | PosttrainConfig, start: Start) -> None:
    batches = training_batches(
        start.model,
        start.data,
        options,
        device=_CPU,
        seed=options.seed,
        num_workers=options.num_workers,
        group=processes(),
    )
    build_lr_schedule(build_optimizer(start.model, options), options, options.epochs * batches.steps_per_epoch)


def _require_input(path: Path, plan: PipelinePlan) -> None:
    """Check that a checkpoint is there, unless it lies where the run writes its own.

    Raises:
        DataError: It isn't.
    """
    if not real_path(path).is_relative_to(real_path(plan.root)):
        require_file(path, expected="a checkpoint", remedy="check the path")


def _require_one_store(planned: IterationPlan, iterations: int) -> None:
    """Check that what reads a recording reads the one that is made, where a setting says where.

    Raises:
        UsageError: It doesn't, or several iterations would record into the same store.
    """
    store = planned.record.store
    if store is None or not planned.records:
        return
    if iterations > 1:
        raise UsageError(
            f"`record.store={store}`",
            expected="one iteration, because each records into a store of its own",
            found=f"`iterations={iterations}`",
            remedy="leave it out",
        )
    readers: dict[str, FitGammaConfig | ApplyMaskConfig | RepairConfig | None] = {"fit-gamma": planned.fit}
    if load_criterion(planned.mask.criterion).reads_recording:
        readers["apply-mask"] = planned.mask
    if planned.repair is not None and planned.repair.from_statistics:
        readers["repair"] = planned.repair
    for stage, options in readers.items():
        if options is not None and _real(options.store) != _real(store):
            raise UsageError(
                f"`record.store={store}`",
                expected=f"the same store for {stage}, which reads the recording",
                found=f"{options.store or 'none'}",
                remedy=f"pass `{stage}.store={store}` as well",
            )


def _real(store: Path | StoreUrl | None) -> Path | StoreUrl | None:
    return real_path(store) if isinstance(store, Path) else store
