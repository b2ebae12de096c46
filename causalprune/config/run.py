"""Options of ``run``, and settings of any option of its stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import Options, at_least, fraction, one_of, option
from causalprune.base.units import check_interval
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.evaluate import EvaluateConfig
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.config.layers import (
    SCOPE_HELP,
    LayerTarget,
    keep_option,
    layer_sparsity_option,
    pattern_option,
    prune_option,
)
from causalprune.config.posttrain import PosttrainConfig, distill_option
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.config.repair import RepairConfig
from causalprune.config.shared import ComputeOptions, DataOptions, ModelOptions, reestimate_option
from causalprune.config.values import convert, known
from causalprune.pruning.names import (
    MASK_SCOPES,
    REWINDS,
    SPARSITY_SCHEDULES,
    check_criterion,
    check_mask_granularity,
)

RUN_STAGES: dict[str, type[Options]] = {
    "pretrain": PretrainConfig,
    "train": PosttrainConfig,
    "record": RecordConfig,
    "fit-gamma": FitGammaConfig,
    "apply-mask": ApplyMaskConfig,
    "repair": RepairConfig,
    "posttrain": PosttrainConfig,
    "evaluate": EvaluateConfig,
}
"""Stages of a run; ``train``, before each recording, has the options of posttrain."""


@dataclass(frozen=True)
class Setting:
    """A value for one option of one stage of a run.

    Attributes:
        stage: One of :data:`RUN_STAGES`; empty for an option of run itself.
        option: Name of the option.
        value: Its value, in the type of the option.
        text: The setting as given, ``STAGE.OPTION=VALUE``.
        source: Where it comes from, for messages.
    """

    stage: str
    option: str
    value: Any
    text: str = ""
    source: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.text

    @property
    def key(self) -> str:
        """``STAGE.OPTION``, or the name of an option of run."""
        return f"{self.stage}.{self.option}" if self.stage else self.option

    @classmethod
    def parse(cls, text: str, place: str = "--set") -> Setting:
        """Read ``STAGE.OPTION=VALUE``.

        Raises:
            UsageError: Unknown stage or option, or an invalid value.
        """
        target, equals, value = text.partition("=")
        stage, dot, said = target.partition(".")
        if not (equals and stage and dot):
            raise UsageError(place, expected="STAGE.OPTION=VALUE", found=repr(text))
        return cls.of(stage, said, value, text, f"{place} {text}", f"{place} {target}")

    @classmethod
    def of(cls, stage: str, said: str, value: Any, text: str, source: str, subject: str = "") -> Setting:
        """Make a setting from text, a TOML value or a value of a list.

        Args:
            stage: The stage.
            said: The option as given.
            value: Its value, to be converted.
            text: The setting as given.
            source: Where it comes from.
            subject: Subject of an error about the value; by default the source.

        Raises:
            UsageError: Unknown stage or option, or an invalid value.
        """
        kinds: dict[str, type[Options]] = {"": RunConfig, **RUN_STAGES}
        if stage not in kinds:
            raise UsageError(source, expected="one of the stages " + ", ".join(RUN_STAGES), found=repr(stage))
        name = known(said.replace("-", "_"), kinds[stage].option_fields(), source)
        return cls(stage, name, convert(kinds[stage], name, value, subject or source), text, source)


@dataclass(frozen=True, kw_only=True)
class RunConfig(ModelOptions, DataOptions, ComputeOptions):
    """The whole pipeline: pretrain, then N times train, record, fit and mask, then posttrain and evaluate.

    γ is fitted only for a criterion that reads it. Nothing is recorded for one that reads no recording, unless
    record.layer-statistics is set.

    Example: causalprune run --iterations 5 --sparsity 0.98
    """

    iterations: int = option(5, "Pruning iterations.", check=at_least(1))
    sparsity: float = option(0.9, "Fraction of prunable weights that are zero at the end.", check=fraction)
    pattern: str | None = pattern_option()
    schedule: str = option("cubic", "How the sparsity rises over the iterations.", check=SPARSITY_SCHEDULES)
    criterion: str = option("effect", "What orders the parameters; see apply-mask --help.", check=check_criterion)
    scope: str = option("global", SCOPE_HELP, check=MASK_SCOPES)
    keep: tuple[str, ...] = keep_option()
    layer_sparsity: tuple[LayerTarget, ...] = layer_sparsity_option()
    prune: tuple[str, ...] = prune_option("Record and prune")
    granularity: str = option("parameter", "Prune single weights or whole groups.", check=check_mask_granularity)
    rewind: str = option("none", "Weights after each mask; see apply-mask --help.", check=one_of(REWINDS))
    repair: bool = option(
        False, "After each mask, set the kept weights anew so that each layer does what it did; see repair --help."
    )
    pretrain_epochs: int = option(30, "Epochs of pretraining.", check=at_least(0))
    train_epochs: int = option(2, "Epochs of training before each recording.", check=at_least(0))
    record_epochs: int = option(5, "Epochs of each recording.", check=at_least(1))
    posttrain_epochs: int = option(30, "Epochs of training after the last mask.", check=at_least(0))
    distill: float = distill_option("In the training after the last mask: ")
    reestimate_batchnorm: int = reestimate_option()
    batch_size: int = option(64, "Minibatch size of training and recording.", check=at_least(1))
    checkpoint_every: str = option(
        "5min", "How often to save for a resume: 500steps, 10min or never.", check=check_interval, affects_result=False
    )
    set: tuple[Setting, ...] = option(
        (),
        "Any option of one stage, such as record.lr=0.02; may be repeated.",
        metavar="STAGE.OPTION=VALUE",
        parse=Setting.parse,
        repeated=True,
    )
    dry_run: bool = option(
        False, "Predict steps, bytes, peak disk and time of every stage; write nothing.", affects_result=False
    )

    def check(self) -> None:
        """Reject a sparsity beside a pattern, which has one of its own."""
        super().check()
        usual = self.option_fields()["sparsity"].default
        if self.pattern is not None and self.sparsity != usual:
            raise UsageError("--sparsity", expected=f"none beside --pattern {self.pattern}", found=f"{self.sparsity:g}")
