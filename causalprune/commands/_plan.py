"""The plan of ``run``: the configuration of each stage, made from that of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from causalprune.base.errors import UsageError
from causalprune.base.options import Options
from causalprune.base.paths import RunPaths
from causalprune.commands.names import settings_in_errors
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.evaluate import EvaluateConfig
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.config.posttrain import PosttrainConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.config.repair import RepairConfig
from causalprune.config.run import UNLIKE_RUN, RunConfig
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.selection import target_sparsity
from causalprune.trajectory.steps import UpdateRule

C = TypeVar("C", bound=Options)

_OF_A_RANKING = {"sparsity", "criterion", "scope", "layer_sparsity", "schedule", "iterations"}
"""Options of a mask that mean nothing where it prunes every γ = 0."""

RIDGE_BEFORE_TRAINING = 1.0
"""Penalty of a repair that training or a recording follows. With the much smaller one of ``repair`` weights may grow to
several times their size: training from there ends worse, and the next mask, if it goes by size, empties other layers.
"""


@dataclass(frozen=True)
class IterationPlan:
    """The stages of one iteration.

    Attributes:
        train: The training before the recording.
        record: The recording.
        fit: The fit of γ; None if the criterion reads none.
        mask: The mask.
        repair: The repair after it, if there is one.
        records: Whether there is a recording: for the criterion, or for the statistics of the layers.
    """

    train: PosttrainConfig
    record: RecordConfig
    fit: FitGammaConfig | None
    mask: ApplyMaskConfig
    repair: RepairConfig | None
    records: bool

    def stages(self) -> list[tuple[str, Options]]:
        """Each stage that there is, by its name, in order."""
        stages: dict[str, Options | None] = {
            "train": self.train,
            "record": self.record if self.records else None,
            "fit-gamma": self.fit,
            "apply-mask": self.mask,
            "repair": self.repair,
        }
        return [(stage, options) for stage, options in stages.items() if options is not None]


class PipelinePlan:
    """The configuration of each stage of the pipeline, with the paths of a run directory.

    Each method raises UsageError for an option that can't be used, and for a criterion whose needs the recording won't
    meet.

    Args:
        config: The pipeline.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._paths = RunPaths(config.run)
        self._options = {name: getattr(config, name) for name in config.option_fields()}
        # Code that pretrain may run may also be run by all later stages of the same command.
        self._options["trust_code"] = config.trust_code or ":" in config.model or ":" in config.dataset

    def identity(self) -> dict[tuple[int, str], dict[str, Any]]:
        """What decides the result of each stage: equal for equal work, however its options were said."""
        return {key: stage.identity_fields() for key, stage in self.stages().items()}

    @property
    def root(self) -> Path:
        """The run directory."""
        return self._paths.root

    def stages(self) -> dict[tuple[int, str], Options]:
        """The stages in order, by their iteration (from 1; 0 before the first and after the last) and their name."""
        return self._stages

    @cached_property
    def _stages(self) -> dict[tuple[int, str], Options]:
        stages: dict[tuple[int, str], Options] = {(0, "pretrain"): self.pretrain()}
        for number, planned in enumerate(self.iterations, start=1):
            stages |= {(number, name): options for name, options in planned.stages()}
        return stages | {(0, "posttrain"): self.posttrain(), (0, "evaluate"): self.evaluate()}

    def said(self, stage: str) -> set[str]:
        """Names of the options of a stage that were set."""
        return {setting.option for setting in self._config.set if setting.stage == stage}

    @cached_property
    def iterations(self) -> tuple[IterationPlan, ...]:
        """The stages of all iterations."""
        return tuple(self.iteration(number) for number in range(self._config.iterations))

    def pretrain(self) -> PretrainConfig:
        """The dense network."""
        return self._make(PretrainConfig, "pretrain", self._paths, epochs=self._config.pretrain_epochs)

    def iteration(self, number: int) -> IterationPlan:
        """The stages of iteration ``number`` (from 0)."""
        c, here = self._config, self._paths.iteration(number)
        before = self._paths.pretrained if number == 0 else self._last(number - 1)
        # A seed per iteration, or all iterations would see the batches in the same order.
        seed = c.seed * 1000 + number + 1
        rewind_from = {"none": None, "recording": here.trained, "pretrained": self._paths.pretrained}[c.rewind]
        train = self._make(
            PosttrainConfig,
            "train",
            here,
            seed=seed,
            checkpoint=before,
            dense=self._paths.pretrained,
            output=here.trained,
            epochs=c.train_epochs,
            lr_schedule="constant",
            lr=0.01,
            # Another mask follows, or a repair.
            reestimate_batchnorm=0,
        )
        record = self._make(RecordConfig, "record", here, seed=seed, checkpoint=here.trained, epochs=c.record_epochs)
        # Configured in any case, so that an option that can't be used is refused.
        fit = self._make(FitGammaConfig, "fit-gamma", here, seed=seed)
        # Not measured: a training follows, and the evaluation at the end says what all of it cost.
        values: dict[str, Any] = {"seed": seed, "rewind_from": rewind_from, "measure": False}
        values |= {"zero": True, "criterion": "gamma"} if c.zero else {"iteration": number + 1}
        if c.pattern is not None:
            values["sparsity"] = None
        mask = self._make(ApplyMaskConfig, "apply-mask", here, **values)
        with settings_in_errors("apply-mask"):
            require_served(mask, record)
        criterion = load_criterion(mask.criterion)
        # Statistics of the layers that are asked for belong to the weights at the end of a recording.
        records = criterion.reads_recording or record.layer_statistics
        start = here.recorded if records else here.trained
        mask = replace(mask, checkpoint=start)
        # Without any training, all repairs are towards the first network; a trained one is repaired towards itself.
        reference = start if records or train.epochs else self._paths.pretrained
        last = number + 1 == c.iterations
        trained = self.posttrain().epochs if last else train.epochs or records
        ridge = {"ridge": RIDGE_BEFORE_TRAINING} if trained else {}
        repair = self._make(RepairConfig, "repair", here, seed=seed, dense=reference, **ridge) if c.repair else None
        if repair is not None and repair.from_statistics and not record.layer_statistics:
            with settings_in_errors("repair"):
                raise UsageError(
                    "`from_statistics=true`",
                    expected="a recording that keeps them",
                    found="none",
                    remedy="pass `record.layer_statistics` as well",
                )
        fitted = criterion.needs & {"gamma", "dual_correlation"}
        return IterationPlan(train, record, fit if fitted else None, mask, repair, records)

    def _last(self, number: int) -> Path:
        """The checkpoint that an iteration ends with."""
        here = self._paths.iteration(number)
        return here.repaired if self._config.repair else here.pruned

    def posttrain(self) -> PosttrainConfig:
        """The training after the last mask."""
        last = self._last(self._config.iterations - 1)
        epochs = self._config.posttrain_epochs
        dense = self._paths.pretrained
        return self._make(PosttrainConfig, "posttrain", self._paths, checkpoint=last, dense=dense, epochs=epochs)

    def evaluate(self) -> EvaluateConfig:
        """The measurement of the final network."""
        return self._make(EvaluateConfig, "evaluate", self._paths)

    def _make(self, kind: type[C], stage: str, paths: RunPaths, **values: Any) -> C:
        shared = (self._options.keys() & kind.option_fields().keys()) - UNLIKE_RUN.get(stage, set())
        if self._config.zero and stage == "apply-mask":
            shared -= _OF_A_RANKING
        said = {s.option: s.value for s in self._config.set if s.stage == stage}
        with settings_in_errors(stage, said):
            return kind(**{name: self._options[name] for name in shared} | {"run": paths.root} | values | said)


def require_served(mask: ApplyMaskConfig, record: RecordConfig) -> None:
    """Check, before anything is trained, that a recording made with this configuration meets a criterion's needs.

    :meth:`causalprune.pruning.criterion.Criterion.require` checks a recording that exists.

    Raises:
        UsageError: It doesn't.
    """
    criterion = load_criterion(mask.criterion)
    if criterion.reweights:
        mask.check_no_rewind(criterion.name)
    criterion.check_options(exponent=mask.exponent, first_order=mask.first_order)
    criterion.finds_dead_ends(mask.dead_ends, ranks_weights=mask.ranks_weights)
    made = {name: getattr(record, name) for name in ("momentum", "stride", "loss_change")}
    unmet = criterion.unmet(UpdateRule(**made))
    if unmet:
        need, _ = unmet
        odd = [name for name, value in made.items() if need.unmet(UpdateRule(**{name: value}), ())]
        plain = {name: getattr(UpdateRule(), name) for name in odd}
        raise UsageError(
            f"`criterion={criterion.name}`",
            expected=need.what,
            found=_of_record({name: made[name] for name in odd}),
            remedy=f"pass {_of_record(plain)}, or choose another criterion",
        )
    if criterion.reads_recording and record.columns < 1:
        _require_enough_columns(mask, record)


_ROUNDING = 0.005
"""By how much a mask may exceed the share of the columns before it is refused here: layers' sizes aren't known yet."""


def _require_enough_columns(mask: ApplyMaskConfig, record: RecordConfig) -> None:
    """Check that as many weights are recorded as are to be pruned."""
    said = _of_record({"columns": record.columns})
    if mask.granularity != "parameter" or mask.pattern is not None:
        groups = f"`granularity={mask.granularity}`" if mask.pattern is None else f"`pattern={mask.pattern}`"
        expected = f"single weights beside {said}, because groups are hardly ever recorded as a whole"
        raise UsageError(groups, expected=expected, found="groups")
    if mask.sparsity is None:
        return
    schedule, of, number = mask.schedule, mask.iterations, mask.iteration
    before = target_sparsity(schedule, number - 1, of, mask.sparsity) if number > 1 else 0.0
    most = before + record.columns * (1 - before)
    wanted = target_sparsity(schedule, number, of, mask.sparsity)
    if wanted > most + _ROUNDING:
        raise UsageError(
            "`sparsity`",
            expected=f"at most {most:.2%} after iteration {number}, because {said} records no other weights to prune",
            found=f"{wanted:.2%}",
            remedy="record a larger share, take more `iterations`, or choose a criterion that reads no recording",
        )


def _of_record(options: Mapping[str, float | str]) -> str:
    """Options of the recording, in backticks."""
    said = (f"record.{name}={value if isinstance(value, str) else f'{value:g}'}" for name, value in options.items())
    return f"`{', '.join(said)}`"
