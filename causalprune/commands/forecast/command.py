"""The stages of a pipeline in order, with what each takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from causalprune.base.compute.runtime import make_deterministic, processes, resolve_device
from causalprune.base.files import bytes_below
from causalprune.base.paths import RunPaths, StoreUrl, mask_path
from causalprune.base.progress import Reporter
from causalprune.base.units import format_bytes
from causalprune.commands._network import among, described_rest, samples_of, set_up
from causalprune.commands._output import Work
from causalprune.commands._plan import IterationPlan, PipelinePlan
from causalprune.commands.apply_mask.layers import choice_options, named_layers, target_of
from causalprune.commands.forecast.files import (
    STORE_METADATA,
    CheckpointFiles,
    layer_metrics,
    saved_states,
    training_metrics,
)
from causalprune.commands.forecast.result import RunForecast
from causalprune.commands.forecast.timing import TimedSteps, fit_seconds, time_evaluation, time_steps
from causalprune.commands.pipeline.reuse import load_reused, reused_network
from causalprune.commands.pretrain import initial_network, pretrain_output
from causalprune.commands.record.layers import LayersToKeep
from causalprune.commands.record.prediction import (
    FirstGradient,
    first_gradient,
    record_batches,
    recorded_columns,
    recorded_rows,
    require_recordable,
)
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.posttrain import PosttrainConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.run import RunConfig
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo
from causalprune.models.mask import Mask
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.network.choice import choose_weights, untrained_tensors
from causalprune.pruning.removable import prunable_producers
from causalprune.training.loop import training_batches

_MASK_METRICS = {"metrics": "0" * 400}
"""As long as those of a mask without remarks."""


@dataclass
class _Stages:
    rows: list[dict[str, Any]] = field(default_factory=list)
    freed: dict[int, int] = field(default_factory=dict)
    """Bytes that are removed after a stage, by its place in the list."""

    def add(self, iteration: int | None, stage: str, **values: Any) -> None:
        usual = {"steps": None, "rows": None, "columns": None, "bytes": 0, "saved_bytes": 0, "seconds": None}
        self.rows.append({"iteration": iteration, "stage": stage, **usual, **values})

    @property
    def total_bytes(self) -> int:
        written: int = sum(row["bytes"] for row in self.rows)
        return written - sum(self.freed.values())

    @property
    def peak_bytes(self) -> int:
        before, peak = 0, 0
        for place, row in enumerate(self.rows):
            # A saved state is larger than the checkpoint that is written when it is no longer needed.
            store = row["bytes"] if row["rows"] else 0
            peak = max(peak, before + row["bytes"], before + store + row["saved_bytes"])
            before += row["bytes"] - self.freed.get(place, 0)
        return max(peak, before)


def forecast(config: RunConfig, reporter: Reporter) -> RunForecast:
    """Say what each stage of a pipeline will take; writes nothing.

    Steps and rows follow from options and data. Bytes of checkpoints are those of their tensors; of recordings those of
    a real first step, of the weights that the network begins with. The time is that of a few real steps.

    Args:
        config: The pipeline.
        reporter: Passes on warnings.

    Raises:
        CausalpruneError: What the run would refuse before its first stage, where an iteration needs more than its mask
            leaves, too.
    """
    work = Work(stage="run", config=config)
    stages = _Forecast(config, work, reporter).made()
    paths = RunPaths(config.run)
    files = [path for part in (*paths.iterations(), paths) for path in part.artifacts()]
    existing = sum(bytes_below(path) + bytes_below(mask_path(path)) for path in files)
    root = next(folder for folder in (paths.root, *paths.root.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(root).free
    if stages.peak_bytes - existing > free:
        work.warn(
            reporter,
            f"the run needs up to {format_bytes(stages.peak_bytes - existing)} more, and the disk of {paths.root} has "
            f"{format_bytes(free)} free: record fewer steps, with a record.stride or record.codec=small, or choose "
            "another --run",
        )
    return RunForecast(
        **work.common(),
        stages=stages.rows,
        total_bytes=stages.total_bytes,
        peak_bytes=stages.peak_bytes,
        existing_bytes=existing,
        free_bytes=free,
        predicted_seconds=sum(row["seconds"] or 0.0 for row in stages.rows),
    )


class _Forecast:
    """A network of before the run, followed through its stages."""

    def __init__(self, config: RunConfig, work: Work, reporter: Reporter) -> None:
        self._config = config
        self._plan = PipelinePlan(config)
        self._first = self._plan.pretrain()
        if config.from_run is None:
            self._begin(config, partial(work.warn, reporter))
        else:
            start = load_reused(config)
            self._info = replace(start.info, position={}, metrics={})
            path = RunPaths(config.from_run).pretrained
            self._device, self._data, self._model, self._mask = set_up(start, path, self._first)
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}
        self._files = CheckpointFiles(self._info, weights)
        self._evaluation_seconds, self._metrics = time_evaluation(self._model, self._data, device=self._device)
        self._timed: dict[str, TimedSteps] = {}
        self._gradient: FirstGradient | None = None
        self._stages = _Stages()

    def _begin(self, config: RunConfig, warn: Callable[[str], None]) -> None:
        """Make the network that pretrain begins with."""
        output = pretrain_output(self._first)
        # Work that is there already must be that of this run, unless it is replaced.
        output.finished()
        self._device = resolve_device(self._first.device)
        if config.deterministic:
            make_deterministic()
        spec, self._data, model_spec, self._model, self._mask = initial_network(self._first, warn, warn)
        self._model.to(self._device)
        self._info = CheckpointInfo(
            "pretrain",
            model=model_spec,
            data=spec,
            data_fingerprint=self._data.fingerprint,
            index=self._mask.index,
            classes=self._data.class_names,
            sources=output.sources,
        )

    def made(self) -> _Stages:
        """The stages."""
        if self._config.from_run is None:
            self._train(None, "pretrain", self._first)
        else:
            path = reused_network(self._config)
            self._stages.add(None, "pretrain", bytes=bytes_below(path) + bytes_below(mask_path(path)))
            self._files.ancestors += 1
        for number in range(self._config.iterations):
            self._iterate(number + 1, self._plan.iteration(number))
        self._train(None, "posttrain", self._plan.posttrain())
        # Of the network, and of the dense one beside it.
        self._stages.add(None, "evaluate", seconds=2 * self._evaluation_seconds(len(self._data.test)))
        return self._stages

    def _train(self, iteration: int | None, stage: str, options: PretrainConfig | PosttrainConfig) -> None:
        batches = training_batches(
            self._model,
            self._data,
            options,
            device=self._device,
            seed=options.seed,
            num_workers=options.num_workers,
        )
        seconds, saved = self._evaluation_seconds(len(self._data.validation)) * max(1, options.epochs), 0
        steps = options.epochs * batches.steps_per_epoch
        if steps:
            if stage not in self._timed:
                self._timed[stage] = time_steps(
                    self._model,
                    self._data,
                    options,
                    batches,
                    mask=self._mask,
                    device=self._device,
                    distill=getattr(options, "distill", 0.0),
                )
            seconds += steps * self._timed[stage].seconds
            state = self._files.state_bytes(self._mask, more=self._timed[stage].state, best=True)
            saved = saved_states(options.checkpoint_every) * state
        command = "pretrain" if stage == "pretrain" else "posttrain"
        metrics = training_metrics(options.epochs, self._metrics)
        size = self._files.next_bytes(command, options, self._mask, metrics)
        self._stages.add(iteration, stage, steps=steps, bytes=size, saved_bytes=saved, seconds=seconds)

    def _iterate(self, number: int, plan: IterationPlan) -> None:
        self._train(number, "train", plan.train)
        store = self._record(number, plan) if plan.records else 0
        self._mask = self._pruned(plan.mask)
        size = self._files.next_bytes("apply-mask", plan.mask, self._mask, _MASK_METRICS)
        self._stages.add(number, "apply-mask", bytes=size)
        if plan.repair is not None:
            size = self._files.next_bytes(
                "repair", plan.repair, self._mask, layer_metrics(self._mask, samples=plan.repair.samples)
            )
            saved = saved_states(plan.repair.checkpoint_every) * self._files.state_bytes(self._mask, more={})
            self._stages.add(number, "repair", bytes=size, saved_bytes=saved)
        if self._config.discard_stores:
            self._stages.freed[len(self._stages.rows) - 1] = store

    def _record(self, number: int, plan: IterationPlan) -> int:
        """The recording and its fit; returns the bytes of its store."""
        config = plan.record
        self._mask = mask = self._mask.among(self._model, config.prune)
        batches = record_batches(config, self._model, self._data, self._device, processes())
        require_recordable(self._model, mask, "recording")
        steps, rows = recorded_rows(config, batches)
        columns = recorded_columns(config, mask)
        if self._gradient is None:
            task = replace(self._data.task, label_smoothing=config.label_smoothing)
            self._gradient = first_gradient(config, self._model, columns, batches, task)
        row = self._gradient.of_the_largest(columns.num_kept)
        store = row.stored_bytes(config, rows) + STORE_METADATA
        # One bit per parameter: which of them has a column.
        store += mask.index.total // 8 if columns.num_pruned else 0
        # And where that is a sample, of which ones.
        store += mask.index.total // 8 if mask.num_pruned and columns is not mask else 0
        if config.layer_statistics:
            store += LayersToKeep(config, self._model, mask, self._data, self._device).predicted_bytes()
        if isinstance(config.store, StoreUrl):
            # It isn't on this disk.
            store = 0
        metrics = {"rows": rows, "not_prunable": described_rest(self._model, mask.index)}
        size = self._files.next_bytes("record", config, mask, metrics)
        more = {"row": torch.empty(columns.num_kept)} if config.stride > 1 else {}
        if config.momentum:
            more["momentum"] = torch.empty(sum(p.numel() for p in self._model.parameters()))
        self._stages.add(
            number,
            "record",
            steps=rows * config.stride,
            rows=rows,
            columns=columns.num_kept,
            bytes=size + store,
            saved_bytes=saved_states(config.checkpoint_every) * self._files.state_bytes(mask, more=more),
            seconds=steps * row.step_seconds,
        )
        if plan.fit is not None:
            # Before compression: γ is mostly 0, but the score of every column is a number. With momentum there are
            # three columns per weight.
            size = 4 * columns.num_kept * (3 if config.momentum else 1)
            seconds = fit_seconds(row.delta, rows=rows, codec=config.codec)
            self._stages.add(number, "fit-gamma", bytes=size, seconds=seconds)
            store += size
        # Only a store in the run directory is ever discarded.
        return store if config.store is None else 0

    def _pruned(self, config: ApplyMaskConfig) -> Mask:
        """A mask with as many weights as that of the run: by magnitude, because nothing is recorded yet.

        How many γ will be 0 nobody knows; with that rule all weights stay.
        """
        mask = self._mask.among(self._model, config.prune)
        if config.zero:
            return mask
        frozen: Sequence[str] = [] if config.prune_frozen else untrained_tensors(self._model, mask.index, ())
        channels = config.granularity == "channel"
        samples = samples_of(self._data, "train", self._device, count=2) if channels else None
        producers, _ = prunable_producers(config.granularity, self._model, mask.index, self._info.model, samples)
        target, progress = target_of(config)
        start = among(Checkpoint(self._info, self._files.weights), mask.index)
        choice = choose_weights(
            load_criterion("magnitude"),
            np.asarray(mask.index.flatten(start.weights)),
            mask,
            sparsity=target,
            progress=progress,
            named=named_layers(config, mask.index, frozen),
            frozen=frozen,
            producers=producers,
            **choice_options(config) | {"exponent": None, "first_order": False},
        )
        return choice.selection.mask
