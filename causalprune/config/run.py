"""Options of ``run``, settings of any option of its stages, and what a recipe makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from causalprune.base.errors import UsageError
from causalprune.base.options import Options, at_least, flag_of, fraction, one_of, option, option_text, require
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
from causalprune.config.recipes.authors import RECIPES, check_recipe
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
from causalprune.training.options import log_option

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


OF_A_COMMAND_ALONE = frozenset(
    (
        *("run", "overwrite", "stop_signals", "dry_run", "break_lock"),
        *("checkpoint", "output", "name", "recording", "fit", "weights"),
    )
)
"""Options that a stage has as a command of its own only: where it reads and writes, and how it deals with what is
there, the run decides."""

OF_RUN_ITSELF = frozenset(f"apply-mask.{name}" for name in ("sparsity", "criterion", "pattern", "zero"))
"""Settings that are refused beside an option of run: results and tables would show its value, and not the one used."""

UNLIKE_RUN = {
    "train": {"distill", "reestimate_batchnorm"},
    "record": {"augment", "dry_run"},
    "fit-gamma": {"device", "scope", "granularity"},
    "repair": {"batch_size"},
    "evaluate": {"batch_size"},
}
"""Options of a stage that mean something else than those of run with the same name; all others are passed on."""


def settable(stage: str) -> dict[str, Field[Any]]:
    """The options of a stage of a run that can be set."""
    return {name: f for name, f in RUN_STAGES[stage].option_fields().items() if name not in OF_A_COMMAND_ALONE}


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
            raise UsageError(place, expected="STAGE.OPTION=VALUE such as record.lr=0.02", found=repr(text))
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
        options = kinds[stage].option_fields()
        name = known(said.replace("-", "_"), options, source, f"an option of {stage}")
        if stage and name not in settable(stage):
            raise UsageError(
                source,
                expected=f"an option of {stage} that a run leaves to it",
                found=said,
                remedy="leave it out; `run --dry-run` predicts all stages" if name == "dry_run" else "leave it out",
            )
        value = convert(kinds[stage], name, value, subject or source)
        if check := options[name].metadata["check"]:
            # The stage would name an option of its own.
            require(subject or source, value, check)
        return cls(stage, name, value, text, source)


def _setting(text: str, source: str) -> Setting:
    return Setting.parse(text, source)


def setting_names() -> list[str]:
    """``STAGE.OPTION=`` for every option of every stage."""
    return [f"{stage}.{o.replace('_', '-')}=" for stage in RUN_STAGES for o in settable(stage)]


# For the completion of the shell.
_setting.names = setting_names  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class RunConfig(ModelOptions, DataOptions, ComputeOptions):
    """The whole pipeline: pretrain, then N times train, record, fit and mask, then posttrain and evaluate.

    γ is fitted only for a criterion that reads it. Nothing is recorded for one that reads no recording, unless
    record.layer-statistics is set.

    Example: causalprune run --iterations 5 --sparsity 0.98
    """

    panel = "Pruning"
    first = (
        "dataset model from_run iterations sparsity criterion "
        "pretrain_epochs train_epochs record_epochs posttrain_epochs set dry_run"
    )

    from_run: Path | None = option(
        None,
        "Prune the dense network of another run directory, DIR/pretrained.safetensors, instead of training one; model, "
        "data and pretraining are then those of DIR.",
        flag="--from",
        metavar="DIR",
        affects_result=False,
    )
    iterations: int = option(5, "Pruning iterations.", check=at_least(1))
    sparsity: float = option(0.9, "Fraction of prunable weights that are zero at the end.", check=fraction)
    pattern: str | None = pattern_option()
    zero: bool = option(
        False,
        "Prune every weight with γ = 0 (the paper's rule, where α sets how much) instead of to --sparsity.",
        formerly=False,
    )
    recipe: str = option(
        "",
        "Set what a version of the authors' paper or code has, all of it; what is said beside it wins. info --recipe "
        "NAME lists it.",
        check=check_recipe,
        formerly="",
    )
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
    distill: float = distill_option("After the last mask: ")
    reestimate_batchnorm: int = reestimate_option()
    batch_size: int = option(64, "Minibatch size of training and recording.", check=at_least(1), panel="Training")
    checkpoint_every: str = option(
        "5min",
        "How often to save for a resume: 500steps, 10min or never.",
        check=check_interval,
        affects_result=False,
        panel="Training",
    )
    log: str = log_option()
    set: tuple[Setting, ...] = option(
        (),
        "Any option of one stage, such as record.lr=0.02; may be repeated.",
        metavar="STAGE.OPTION=VALUE",
        parse=_setting,
        repeated=True,
    )
    discard_stores: bool = option(
        False,
        "Remove the trajectory store of each iteration once its mask is there and nothing reads it any more: γ and "
        "ΔL can't be looked at afterwards.",
        affects_result=False,
        panel="Recording",
    )
    dry_run: bool = option(
        False, "Predict steps, bytes, peak disk and time of every stage; write nothing.", affects_result=False
    )
    said: tuple[str, ...] = field(default=(), compare=False)
    """Names of the options that somebody gave, even if they have their defaults."""

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build a configuration from what is said; a recipe is the weakest of it.

        Raises:
            UsageError: An invalid value, an unknown recipe, or both ``zero`` and a sparsity.
        """
        return cls(**with_recipe(values), said=tuple(values))

    @classmethod
    def option_fields(cls) -> dict[str, Field[Any]]:
        """The options by name."""
        return {name: f for name, f in super().option_fields().items() if name != "said"}

    def says(self, name: str) -> bool:
        """Whether an option was given, or has another value than by default."""
        return name in self.said or getattr(self, name) != self.option_fields()[name].default

    def check(self) -> None:
        """Refuse a recipe by name only, and options that mean nothing where γ = 0 or a pattern decides."""
        super().check()
        if missing := [setting.text for setting in recipe_settings(self.recipe) if setting not in self.set]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UsageError(
                "--recipe",
                expected="all that the recipe sets, as RunConfig.of(recipe=…) has it",
                found=f"options without {missing[0]}{more}",
            )
        for setting in self.set:
            if setting.key in OF_RUN_ITSELF:
                own = setting.key.rpartition(".")[2]
                raise UsageError(setting.source or setting.text, expected=f"--{own} for it", found="--set")
        if self.zero:
            check_zero({f.name: getattr(self, f.name) for f in fields(self)})
        usual = self.option_fields()["sparsity"].default
        if self.pattern is not None and self.sparsity != usual:
            raise UsageError("--sparsity", expected=f"none beside --pattern {self.pattern}", found=f"{self.sparsity:g}")


_OF_RANKING = {"criterion": ("effect", "gamma")} | dict.fromkeys(
    ("scope", "layer_sparsity", "schedule", "sparsity", "pattern"), ()
)
"""What means nothing where every γ = 0 is pruned, and the values that are taken beside the default."""


def check_zero(values: Mapping[str, Any]) -> None:
    """Reject options of ranking and schedule beside ``zero``.

    Raises:
        UsageError: One that isn't at its default.
    """
    for name, taken in _OF_RANKING.items():
        f = RunConfig.option_fields()[name]
        if name in values and values[name] not in (f.default, *taken):
            raise _beside_zero(name, values[name])


def _beside_zero(name: str, value: Any) -> UsageError:
    return UsageError(
        flag_of(RunConfig.option_fields()[name]),
        expected=f"{'gamma' if name == 'criterion' else 'none'} with --zero, which prunes every γ = 0",
        found=option_text(value),
        remedy="leave one of them out" if name == "sparsity" else "leave it out, or ask for a --sparsity instead",
    )


def recipe_settings(name: str) -> tuple[Setting, ...]:
    """What a recipe sets of the stages; nothing without one."""
    choices = RECIPES[name].choices if name else ()
    return tuple(
        Setting.parse(f"{choice.key}={option_text(choice.value)}", f"recipe {name}")
        for choice in choices
        if "." in choice.key
    )


def with_recipe(said: Mapping[str, Any]) -> dict[str, Any]:
    """Values of options of run, those of the recipe among them where nothing else is said.

    A sparsity or a pattern that is said takes the place of a recipe's rule γ = 0.

    Args:
        said: By name; ``recipe`` may be among them.

    Raises:
        UsageError: An unknown recipe, or both ``zero`` and a sparsity.
    """
    if said.get("zero") and "sparsity" in said:
        raise _beside_zero("sparsity", said["sparsity"])
    name = said.get("recipe", "")
    if not name:
        return dict(said)
    require("--recipe", name, check_recipe)
    values: dict[str, Any] = {}
    for choice in RECIPES[name].choices:
        if "." not in choice.key:
            option = choice.key.replace("-", "_")
            values[option] = convert(RunConfig, option, choice.value, f"{choice.key} of recipe {name}")
    if {"sparsity", "pattern"} & said.keys():
        values.pop("zero", None)
    elif said.get("zero"):
        values = {option: value for option, value in values.items() if option not in ("scope", "schedule")}
    return values | dict(said) | {"set": (*recipe_settings(name), *said.get("set", ()))}


def recipe_changes(name: str, options: Mapping[str, Any], settings: Iterable[Setting]) -> list[str]:
    """In which options work differs from its recipe, because something else was said.

    Args:
        name: The recipe.
        options: All options of run, by name.
        settings: The settings of stages; of several for one option the last one holds.
    """
    held = {setting.key: setting.value for setting in settings}
    changes = []
    own = {setting.key: setting.value for setting in recipe_settings(name)}
    for choice in RECIPES[name].choices if name else ():
        stage, dot, option = choice.key.rpartition(".")
        key = f"{stage}{dot}{option.replace('-', '_')}"
        wanted, found = (own[key], held[key]) if stage else (choice.value, options[key])
        if found != wanted:
            changes.append(f"{choice.key}={option_text(found)} instead of {option_text(choice.value)}")
    return changes
