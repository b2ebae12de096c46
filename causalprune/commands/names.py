"""The commands by name, without importing what they do; the command line is built from this table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import Field, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from causalprune.base.errors import CausalpruneError
from causalprune.base.registry import Registry

if TYPE_CHECKING:
    from causalprune.base.options import Options

_COMMANDS = {
    "pretrain": ("causalprune.config.pretrain:PretrainConfig", "causalprune.commands.pretrain:pretrain"),
    "record": ("causalprune.config.record:RecordConfig", "causalprune.commands.record.command:record"),
    "fit-gamma": ("causalprune.config.fit_gamma:FitGammaConfig", "causalprune.commands.fit_gamma:fit_gamma"),
    "apply-mask": (
        "causalprune.config.apply_mask:ApplyMaskConfig",
        "causalprune.commands.apply_mask.command:apply_mask",
    ),
    "repair": ("causalprune.config.repair:RepairConfig", "causalprune.commands.repair:repair"),
    "posttrain": ("causalprune.config.posttrain:PosttrainConfig", "causalprune.commands.posttrain:posttrain"),
    "evaluate": ("causalprune.config.evaluate:EvaluateConfig", "causalprune.commands.evaluate.command:evaluate"),
    "diagnose": ("causalprune.config.diagnose:DiagnoseConfig", "causalprune.commands.diagnose:diagnose"),
    "export": ("causalprune.config.export:ExportConfig", "causalprune.commands.export:export"),
    "run": ("causalprune.config.run:RunConfig", "causalprune.commands.run:run"),
    "sweep": ("causalprune.config.sweep:SweepConfig", "causalprune.commands.sweep.command:sweep"),
    "report": ("causalprune.config.report:ReportConfig", "causalprune.commands.report.command:report"),
    "info": ("causalprune.config.info:InfoConfig", "causalprune.commands.info.command:info"),
    "store verify": ("causalprune.config.store:StoreVerifyConfig", "causalprune.commands.store:store_verify"),
    "store export": ("causalprune.config.store:StoreExportConfig", "causalprune.commands.store:store_export"),
    "store compact": ("causalprune.config.store:StoreCompactConfig", "causalprune.commands.store:store_compact"),
    "store merge": ("causalprune.config.store:StoreMergeConfig", "causalprune.commands.store:store_merge"),
}

CONFIGS = Registry("command", {name: config for name, (config, _) in _COMMANDS.items()})
"""The class of each command's options, in the order of ``--help``; its docstring is the help and ends with an example
that works as it is."""

FUNCTIONS = Registry("command", {name: function for name, (_, function) in _COMMANDS.items()})
"""Each command: a function of its options and a reporter that returns a result."""

ARGUMENTS = {
    "record": ("checkpoint", "pretrained"),
    "fit-gamma": ("store", "store"),
    "apply-mask": ("checkpoint", "recorded"),
    "repair": ("checkpoint", "pruned"),
    "posttrain": ("checkpoint", "pruned"),
    "evaluate": ("checkpoint", "final"),
    "diagnose": ("store", "store"),
    "export": ("checkpoint", "final"),
    "report": ("run", "root"),
}
"""What a command works on, which may be said without a flag: the option, and which file of a run directory it is if
nothing is said, as an attribute of :class:`causalprune.base.paths.RunPaths`."""

_NAME, _VALUE = r"(?:[a-z][a-z-]*\.)?[a-z]\w*", r"=(?:[^`,]|,(?! ))+"
_PARAMETERS = re.compile(rf"`({_NAME}(?:{_VALUE})?(?:, {_NAME}{_VALUE})*)`")
"""A parameter in backticks, or several with their values, such as ``momentum=0, stride=1``; that of another stage than
the one that speaks has this in front, as in ``record.lr``."""

GROUPS = {
    "store": ("Verify, export, compact or merge trajectory stores.", "causalprune store verify run/trajectory.zarr"),
}
"""The help of commands that share their first word, and an example."""

WHOLE = ("run", "sweep", "report", "info")
"""The commands that one begins with, which the list shows first; the others are a stage each, or about its files."""

_SUMMARIES = {
    "pretrain": "Train a dense network: reach a basin of attraction.",
    "record": "Run plain SGD and record every step.",
    "fit-gamma": "Fit the Granger coefficients γ of a recording.",
    "apply-mask": "Prune: turn a fit, or another criterion, into a mask.",
    "repair": "Set the weights that a mask kept, layer by layer, so that the network computes again what the dense one "
    "did.",
    "posttrain": "Train the pruned network with its mask held.",
    "evaluate": "Measure a checkpoint on the test split.",
    "diagnose": "Ask of a fit what a sceptic would: whether it predicts, is stable, and agrees with interventions.",
    "export": "Write a checkpoint's network, or its weights, for use without causalprune; a smaller one with "
    "--compact.",
    "run": "The whole pipeline: pretrain, then N times train, record, fit and mask, then posttrain and evaluate.",
    "sweep": "Sparsities × criteria × seeds × any other option into one table of results.",
    "report": "Make a page of what a sweep or a run found: curves, phase shift, layers, γ, overlap, losses, curvature.",
    "info": "Say what a store, a checkpoint or a run directory is.",
    "store verify": "Read everything in a trajectory store and compare it with its checksums.",
    "store export": "Write rows and parameters of a recording for other tools: NumPy, safetensors or Zarr.",
    "store compact": "Make a trajectory store smaller: another codec for its recordings, or fewer of them.",
    "store merge": "Stack the recordings of several jobs in a new store, so that one fit sees the rows of all.",
}
"""The first lines of the commands' help, so that a list of all commands imports the options of none."""


def summary(command: str) -> str:
    """The first line of a command's help."""
    return _SUMMARIES.get(command) or summary_of(CONFIGS.load(command))


def summary_of(config: type[Options]) -> str:
    """The first line of a command's help as the class of its options says it."""
    return " ".join((inspect.getdoc(config) or "").partition("\n\n")[0].split())


class Configs(Mapping[str, "type[Options]"]):
    """The class of every command's options by name, imported when it is looked up."""

    def __getitem__(self, name: str) -> type[Options]:
        if name not in CONFIGS:
            raise KeyError(name)
        config: type[Options] = CONFIGS.load(name)
        return config

    def __iter__(self) -> Iterator[str]:
        return iter(CONFIGS)

    def __len__(self) -> int:
        return len(CONFIGS)


def load_configs() -> dict[str, type[Options]]:
    """The class of every command's options."""
    return dict(Configs())


def in_run(stage: str, name: str, value: str = "") -> str:
    """How ``run`` and ``sweep`` take an option of a stage: by a flag of their own, else as a setting.

    Args:
        stage: A stage of a run.
        name: The option.
        value: Its value; left out where only the option is named.
    """
    from causalprune.base.options import flag_of
    from causalprune.config.run import RUN_STAGES, RunConfig

    if own := RunConfig.option_fields().get(f"{stage}_{name}"):
        return f"{flag_of(own)} {value}".rstrip()
    value = value or ("true" if RUN_STAGES[stage].option_types()[name] is bool else "…")
    return f"--set {stage}.{name.replace('_', '-')}={value}"


def with_settings(message: str, stage: str, said: Collection[str] = ()) -> str:
    """Name options of a stage as ``run`` and ``sweep`` take them: ``--set record.lr=…`` for `` `lr` ``.

    Args:
        message: What the stage said. Options that ``run`` has itself stay as they are, for :func:`with_flags`.
        stage: A stage of a run; any other has no settings of its own.
        said: Options of the stage that were set, which are named as settings even if ``run`` has them.
    """
    from causalprune.config.run import RUN_STAGES, UNLIKE_RUN, RunConfig, settable

    of_run = RunConfig.option_fields().keys() - UNLIKE_RUN.get(stage, set()) - set(said)
    own = settable(stage).keys() - of_run if stage in RUN_STAGES else set()

    def named(match: re.Match[str]) -> str:
        said = [_Parameter.parse(part) for part in match[1].split(", ")]
        if not all(p.name in (settable(p.stage) if p.stage in RUN_STAGES else () if p.stage else own) for p in said):
            return match[0]
        return " ".join(in_run(p.stage or stage, p.name, p.value) for p in said)

    return _PARAMETERS.sub(named, message)


@contextmanager
def in_errors(reworded: Callable[[str], str]) -> Iterator[None]:
    """While the body runs, errors say what they say in other words."""
    try:
        yield
    except CausalpruneError as error:
        error.reword(reworded)
        raise


def settings_in_errors(stage: str, said: Collection[str] = ()) -> AbstractContextManager[None]:
    """While the body runs, errors name options of a stage as :func:`with_settings` does."""
    return in_errors(partial(with_settings, stage=stage, said=said))


def with_axes(message: str, varied: Collection[str]) -> str:
    """Name options that a sweep varies as it takes them: ``--vary record.lr=…`` for ``--set record.lr=…``.

    Args:
        message: With settings as :func:`with_settings` names them, and options of run in backticks or as flags.
        varied: ``STAGE.OPTION``, or the name of an option of run.
    """
    for key in varied:
        flag = key.replace("_", "-")
        if "." in key:
            message = message.replace(f"--set {flag}=", f"--vary {flag}=")
        else:
            said = rf"`{key}(?:=([^`]+))?`|--{flag}(?![\w-])(?: (\d\S*\b))?"
            message = re.sub(said, partial(_varied, flag), message)
    return message


def _varied(flag: str, match: re.Match[str]) -> str:
    return f"--vary {flag}={match[1] or match[2] or '…'}"


def with_flags(message: str, *others: type[Options]) -> str:
    """Name options as users type them: ``--momentum 0`` for the `` `momentum=0` `` of an error.

    Args:
        message: What the library said. Other words in backticks stay as they are.
        others: Classes of options that are no command's own.
    """

    def flags(match: re.Match[str]) -> str:
        said = [_Parameter.parse(part) for part in match[1].split(", ")]
        # A parameter that is an option of one command and an argument of a later one is named by the option.
        known = {
            name: f
            for config in (*others, *reversed(load_configs().values()))
            for name, f in config.option_fields().items()
        }
        words = []
        for before, p in zip([_Parameter(), *said], said, strict=False):
            own = (CONFIGS.load(p.stage).option_fields() if p.stage in CONFIGS else {}) if p.stage else known
            if p.name not in own:
                return match[0]
            words += [p.stage] if p.stage != before.stage else []
            words.append(_flag(own[p.name], p.value))
        return " ".join(words)

    return _PARAMETERS.sub(flags, message)


def _flag(option: Field[Any], value: str) -> str:
    """A flag with its value; a switch has none."""
    from causalprune.base.options import flag_of

    on, *off = re.split("[/,]", flag_of(option))
    if isinstance(option.default, bool) and value in ("true", "false"):
        return on if value == "true" else off[0] if off else f"no {on}"
    return f"{on} {value}".rstrip()


@dataclass(frozen=True)
class _Parameter:
    """A parameter in a message: ``lr``, ``lr=0.1`` or, of another stage, ``record.lr=0.1``."""

    stage: str = ""
    name: str = ""
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> _Parameter:
        place, _, value = text.partition("=")
        stage, _, name = place.rpartition(".")
        return cls(stage, name, value)
