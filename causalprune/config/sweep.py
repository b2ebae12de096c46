"""Options of ``sweep``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from causalprune.base.errors import UsageError
from causalprune.base.options import COMMON, at_least, different, flag_of, fraction, option, option_text
from causalprune.config.run import OF_RUN_ITSELF, RunConfig, Setting, check_zero, recipe_settings, with_recipe
from causalprune.config.shared import DataOptions, LeaseOptions, ModelOptions, OutputOptions
from causalprune.config.sweep_values import Axis, varied_names
from causalprune.config.values import meant_number, split_list
from causalprune.pruning.names import check_criterion, known_criteria

_SPARSITIES = "different numbers in [0, 1) such as 0.5,0.9"


def _parse_sparsities(text: str, source: str) -> tuple[float, ...]:
    # A decimal comma reads as two values.
    if text.strip().startswith("0,") and (hint := meant_number(text)):
        raise UsageError(source, expected=_SPARSITIES + hint, found=repr(text))
    return tuple(_parse_sparsity(item, source) for item in split_list(text))


def _parse_sparsity(text: str, source: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(source, expected=_SPARSITIES + meant_number(text), found=repr(text)) from error


def _axis(text: str, source: str) -> Axis:
    return Axis.parse(text, source)


_axis.names = varied_names  # type: ignore[attr-defined]


_criteria = different(check_criterion, "different criteria")
_criteria.names = known_criteria  # type: ignore[attr-defined]


def _shard(value: str) -> str | None:
    index, slash, count = value.partition("/")
    ok = slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)
    return None if ok else "I/N with I from 0 to N − 1, such as 0/4"


_ITERATED = {f.name: f.default for f in fields(RunConfig) if f.name in ("train_epochs", "posttrain_epochs")}

_SETTLED = (
    *(f.name for kind in (DataOptions, ModelOptions) for f in fields(kind)),
    *("pretrain_epochs", "train_epochs", "record_epochs", "iterations"),
)
"""Options of run that affect neither an existing recording nor what is measured from it."""


_OF_RUN_ALONE = ("dry_run", "from_run", "discard_stores")


@dataclass(frozen=True, kw_only=True)
class SweepConfig(LeaseOptions, OutputOptions):
    """Sparsities × criteria × seeds × any other option into one table of results.

    Each cell is what run does; what several cells share is done once. FILE
    is TOML: options of this command, tables of the stages' options, and a
    list where an option is to take several values. Start the command again
    after any interruption, or several at once in one run directory.

    Example: causalprune sweep --sparsity 0.8,0.9 --criterion effect,magnitude
    """

    panel = "Files"
    first = "sparsity criterion seeds vary set dataset model iterations pretrain_epochs record_epochs recorded shard"

    FILE_FLAG: ClassVar[str] = "FILE"
    """How the command line takes the TOML file."""

    base: RunConfig = RunConfig()
    """The options that all cells share; the options of the same name below override its own."""

    sparsity: tuple[float, ...] = option(
        (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99),
        "Sparsities, separated by commas.",
        check=different(fraction, _SPARSITIES),
        parse=_parse_sparsities,
        listed=True,
    )
    criterion: tuple[str, ...] = option(
        ("gamma", "effect", "magnitude", "random"),
        "Criteria, separated by commas; see apply-mask --help.",
        check=_criteria,
        parse=lambda text, _: tuple(split_list(text)),
        listed=True,
    )
    seeds: int = option(3, "Number of seeds: --seed and those that follow it.", check=at_least(1))
    vary: tuple[Axis, ...] = option(
        (),
        "Further values to combine, such as record.lr=0.01,0.02; may be repeated.",
        metavar="[STAGE.]OPTION=VALUES",
        parse=_axis,
        repeated=True,
    )
    iterations: int = option(1, "Pruning iterations; 1 prunes one recording to every sparsity.", check=at_least(1))
    train_epochs: int | None = option(
        None,
        f"Epochs of training before each recording [0 with one iteration, else {_ITERATED['train_epochs']}].",
        check=at_least(0),
        panel="Training",
    )
    posttrain_epochs: int | None = option(
        None,
        f"Epochs of training after the last mask [0 with one iteration, else {_ITERATED['posttrain_epochs']}].",
        check=at_least(0),
        panel="Training",
    )
    recorded: Path | None = option(
        None,
        "Run directory whose recording is pruned, instead of one made for every seed: it needs pretrained.safetensors "
        "(or trained), recorded.safetensors and trajectory.zarr.",
        affects_result=False,
    )
    shard: str = option(
        "0/1", "Do every N-th cell only, from the I-th on (from 0).", metavar="I/N", check=_shard, affects_result=False
    )
    keep_networks: bool = option(False, "Keep the networks of the finished cells.", affects_result=False)
    overwrite: bool = option(
        False,
        "Refused: another process may be working there. Choose another --run, or remove its folder sweep/.",
        affects_result=False,
        panel=COMMON,
    )

    @classmethod
    def option_fields(cls) -> dict[str, Field[Any]]:
        """The options of the sweep itself and those of run that a cell of a sweep has."""
        own = {name: f for name, f in super().option_fields().items() if name != "base"}
        return own | {name: f for name, f in RunConfig.option_fields().items() if name not in {*own, *_OF_RUN_ALONE}}

    @classmethod
    def option_types(cls) -> dict[str, Any]:
        """The types of these options."""
        return RunConfig.option_types() | super().option_types()

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build a sweep from values of :meth:`option_fields`; a recipe is the weakest of them."""
        said = values
        values = with_recipe(values)
        if "criterion" not in said and "criterion" in values:
            values["criterion"] = (values["criterion"],)
        if values.get("zero") and "criterion" not in values:
            values["criterion"] = ("gamma",)
        names = values.keys() & super().option_fields().keys()
        own = {name: values.pop(name) for name in names}
        return cls(base=RunConfig(**values), **own)

    def identity_fields(self) -> dict[str, Any]:
        """The options that affect the results, as users type them."""
        listed = {name: option_text(getattr(self, name)) for name in ("sparsity", "criterion")}
        if self.base.zero:
            listed["sparsity"] = ""
        return self.base.identity_fields() | super().identity_fields() | listed

    def check(self) -> None:
        """Reject overwriting, because other processes may be working there, and options given in two ways."""
        super().check()
        if self.overwrite:
            raise UsageError(
                "sweep",
                expected="no --overwrite, because other processes may be working there",
                remedy="choose another --run, or remove its folder sweep/ when no process works there",
            )
        for axis in self.vary:
            # The options of run have refused those that are set.
            if axis.key in OF_RUN_ITSELF:
                raise UsageError(axis.source, expected=f"--{axis.key.rpartition('.')[2]} for it", found="--vary")
        varied = {axis.key for axis in self.vary}
        for setting in self.base.set:
            if setting.key in varied and setting not in recipe_settings(self.base.recipe):
                raise UsageError(setting.source, expected="an option that is not varied", found=f"--vary {setting.key}")
        usual = self.option_fields()["sparsity"].default
        if self._has_pattern() and self.sparsity != usual:
            found = option_text(self.sparsity)
            raise UsageError("--sparsity", expected="none beside --pattern, which has one of its own", found=found)
        if self.base.zero and self.criterion != ("gamma",):
            check_zero({"criterion": ",".join(self.criterion)})
        if self.base.zero and self.sparsity != usual:
            check_zero({"sparsity": option_text(self.sparsity)})
        if self.recorded is not None:
            if self.base.recipe:
                settled = "none beside --recorded, whose recording is settled"
                raise UsageError("--recipe", expected=settled, found=self.base.recipe)
            self._check_settled()

    def _has_pattern(self) -> bool:
        """Whether patterns take the place of the sparsities."""
        return self.base.pattern is not None or any(axis.key == "pattern" for axis in self.vary)

    def _check_settled(self) -> None:
        """Reject options that an existing recording has fixed: a row would show a setting without effect."""
        said = {one.source: one.key for one in self._said()}
        posttrains = self.posttrain_epochs or any(key.startswith("posttrain") for key in said.values())
        settled = _SETTLED if posttrains else (*_SETTLED, "batch_size")
        found = {
            flag_of(f): str(self._option(name))
            for name, f in self.option_fields().items()
            if name in settled and (self._option(name) or None) != (f.default or None)
        }
        found |= {
            source: key
            for source, key in said.items()
            if key in settled or key.startswith(("pretrain.", "train.", "record."))
        }
        for source, value in found.items():
            raise UsageError(
                source,
                expected="nothing that the recording has settled beside --recorded",
                found=value,
                remedy="leave it out, or make another recording",
            )

    def axes(self) -> list[Axis]:
        """The varied options (the later of two axes for one option), then seeds, criteria and, if any, sparsities."""
        seeds = range(self.base.seed, self.base.seed + self.seeds)
        sparsities = (RunConfig.sparsity,) if self._has_pattern() else self.sparsity
        listed: list[tuple[str, Sequence[Any]]] = [("seed", seeds), ("criterion", self.criterion)]
        listed += [] if self.base.zero else [("sparsity", sparsities)]
        return [*{axis.key: axis for axis in self.vary}.values(), *(Axis.of_run(*values) for values in listed)]

    def cell(self, settings: Iterable[Setting]) -> RunConfig:
        """The configuration of one cell, from one setting per axis.

        With one iteration, epochs that aren't given are 0: the mask is measured without training.
        """
        options = {f.name: self._option(f.name) for f in fields(RunConfig)}
        if self.base.zero:
            options["sparsity"] = self.base.sparsity
        for setting in settings:
            if setting.stage:
                options["set"] = (*options["set"], setting)
            else:
                options[setting.option] = setting.value
        for name, iterated in _ITERATED.items():
            if options[name] is None:
                options[name] = iterated if options["iterations"] > 1 else 0
        return RunConfig(**options)

    def shard_of(self) -> tuple[int, int]:
        """``shard`` as (I, N)."""
        index, _, count = self.shard.partition("/")
        return int(index), int(count)

    def _said(self) -> list[Setting | Axis]:
        return [*self.base.set, *self.vary]

    def _option(self, name: str) -> Any:
        return getattr(self if hasattr(self, name) else self.base, name)
