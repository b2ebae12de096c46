"""The steps of a cell, each named by the hash of everything that decides its result, so that equal steps run once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from causalprune.base.json_files import sha256_file
from causalprune.base.options import Options
from causalprune.base.paths import RunPaths
from causalprune.base.specs import DataSpec
from causalprune.commands._plan import PipelinePlan
from causalprune.commands.apply_mask.layers import require_budgets
from causalprune.commands.pretrain import data_spec_of
from causalprune.commands.provenance.sources import sources_of
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.posttrain import PosttrainConfig
from causalprune.pruning.criteria import load_criterion
from causalprune.trajectory import Store
from causalprune.trajectory.column_groups import groups_per_tensor
from causalprune.trajectory.columns.planned import PlannedRecording
from causalprune.trajectory.steps import UpdateRule


@dataclass(frozen=True)
class Step:
    """One stage with its configuration and the steps whose results it reads.

    Attributes:
        stage: Name of the stage's function, such as ``fit_gamma``.
        config: Its configuration; the paths in it are not used.
        inputs: (role, step) of each input: ``checkpoint``, ``store``, ``fit``, ``rewind``, and ``reference``, the
            evaluation of the dense network.
        common: Whether it comes before the first mask, so that cells with other sparsities and criteria share it.
        given: Run directory that has the result already, and the hash of the result; None for a step to be run.
        sources: Hashes of the user's code and data that a pretraining is made with.
        is_training: Whether it is the training before a recording, which the function of posttrain does.
    """

    stage: str
    config: Options
    inputs: tuple[tuple[str, Step], ...]
    common: bool
    given: tuple[Path, str] | None = None
    sources: dict[str, str] = field(default_factory=dict)
    is_training: bool = False

    @property
    def name(self) -> str:
        """What it is called for people; the training before a recording is a posttrain that is none."""
        return "train" if self.is_training else self.stage.replace("_", "-")

    @cached_property
    def key(self) -> str:
        """The name of the stage and 16 hexadecimal digits of the SHA-256 over everything that decides the result."""
        inputs = {role: step.key for role, step in self.inputs}
        value: dict[str, Any] = {"stage": self.stage, "inputs": inputs}
        value |= {"given": self.given[1]} if self.given else {"config": self.config.identity_fields()}
        if self.sources:
            value["sources"] = self.sources
        return f"{self.stage}-{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]}"

    def input(self, role: str) -> Step:
        """The input with this role."""
        return dict(self.inputs)[role]

    def ancestry(self) -> Iterator[Step]:
        """All steps that this one needs, inputs first, each once, and this one last."""
        seen: set[str] = set()

        def visit(step: Step) -> Iterator[Step]:
            if step.key not in seen:
                seen.add(step.key)
                for _, parent in step.inputs:
                    yield from visit(parent)
                yield step

        return visit(self)


@dataclass(frozen=True)
class Recorded:
    """A recording that exists: its run directory and the hashes of the files that are read.

    Attributes:
        folder: The run directory, or the folder of an iteration in it.
        dense: Hash of the network before the recording.
        recording: Hash of the recording and of the network after it.
        rule: The update rule of its steps.
        learning_rates: The lowest and the highest of each parameter group.
        size: How large it is, and of which parameters.
    """

    folder: Path
    dense: str
    recording: str
    rule: UpdateRule
    learning_rates: tuple[tuple[float, ...], ...]
    size: PlannedRecording

    @classmethod
    def read(cls, folder: Path) -> Recorded:
        """Read and hash the recording in a run directory.

        Raises:
            DataError: A file is missing.
            CorruptError: The store is damaged.
        """
        paths = RunPaths(folder)
        reader = Store.open(paths.store).recording()
        return cls(
            folder,
            sha256_file(paths.dense),
            f"{reader.first_digest} {sha256_file(paths.recorded)}",
            reader.info.update_rule,
            reader.rates_in_gamma.extremes,
            PlannedRecording.of_reader(reader),
        )

    def require_served(self, mask: ApplyMaskConfig) -> None:
        """Check that the network can be pruned as configured.

        Raises:
            MismatchError: A criterion that needs another recording, or groups of weights that the network lacks.
            UsageError: Named layers that it lacks, or sparsities that can't be met.
        """
        load_criterion(mask.criterion).require(
            self.rule,
            self.learning_rates,
            subject=f"--criterion {mask.criterion}",
            where=f" in {self.folder}",
            remedy="choose another, or name another recording",
        )
        if mask.granularity in ("filter", "neuron"):
            groups_per_tensor(self.size.index, mask.granularity)
        require_budgets(mask, self.size.index)


Sources = dict[tuple[str, DataSpec], dict[str, str]]
"""By model and data set, the hashes of the user's code and data; kept for the other cells of a sweep."""


def last_step(plan: PipelinePlan, recorded: Recorded | None = None, sources: Sources | None = None) -> Step:
    """The steps of a whole pipeline, in the order of :func:`causalprune.commands.run.run`; returns its evaluation.

    A training of no epochs and a fit that the criterion doesn't read are left out. The recording is made for every
    criterion, so that all of them prune the same network.

    Args:
        plan: The pipeline.
        recorded: Replaces the pretraining and the first recording.
        sources: What was found out for other cells; it is added to.

    Raises:
        UsageError: An option that can't be used.
        MismatchError: The given recording doesn't meet the needs of the criterion.
    """
    pretrain = plan.pretrain()
    given = (recorded.folder, recorded.dense) if recorded else None
    made_with = (pretrain.model, data_spec_of(pretrain))
    sources = {} if sources is None else sources
    if made_with not in sources:
        sources[made_with] = {} if recorded else sources_of(*made_with)
    dense = current = Step("pretrain", pretrain, (), common=True, given=given, sources=sources[made_with])
    for number, planned in enumerate(plan.iterations):
        train, record, fit, mask = planned.train, planned.record, planned.fit, planned.mask
        if recorded:
            recorded.require_served(mask)
        common = number == 0
        if train.epochs:
            current = Step("posttrain", train, _training_inputs(train, current, dense), common, is_training=True)
        trained = current
        given = (recorded.folder, recorded.recording) if recorded else None
        rows = Step("record", record, (("checkpoint", trained),), common, given)
        inputs = [("checkpoint", rows), ("store", rows)]
        if fit is not None:
            inputs.append(("fit", Step("fit_gamma", fit, (("store", rows),), common)))
        if mask.rewind != "none":
            inputs.append(("rewind", trained if mask.rewind == "recording" else dense))
        current = Step("apply_mask", mask, tuple(inputs), common=False)
        if planned.repair is not None:
            # What was recorded is also trained on, so the network after it is the one that the mask is of.
            inputs = [("checkpoint", current), ("dense", rows)]
            if planned.repair.from_statistics:
                inputs.append(("store", rows))
            current = Step("repair", planned.repair, tuple(inputs), common=False)
    posttrain = plan.posttrain()
    if posttrain.epochs:
        current = Step("posttrain", posttrain, _training_inputs(posttrain, current, dense), common=False)
    measure = plan.evaluate()
    reference = Step("evaluate", measure, (("checkpoint", dense),), common=True)
    return Step("evaluate", measure, (("checkpoint", current), ("reference", reference)), common=False)


def _training_inputs(config: PosttrainConfig, current: Step, dense: Step) -> tuple[tuple[str, Step], ...]:
    """The network to be trained, and the dense one if its outputs are part of the loss."""
    return (("checkpoint", current), ("dense", dense)) if config.distill else (("checkpoint", current),)
