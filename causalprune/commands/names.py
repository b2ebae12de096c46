"""The commands by name, without importing what they do; the command line is built from this table."""

from __future__ import annotations

import re

from causalprune.base.options import Options, flag_of
from causalprune.base.registry import Registry

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
    "evaluate": ("causalprune.config.evaluate:EvaluateConfig", "causalprune.commands.evaluate:evaluate"),
    "diagnose": ("causalprune.config.diagnose:DiagnoseConfig", "causalprune.commands.diagnose:diagnose"),
    "export": ("causalprune.config.export:ExportConfig", "causalprune.commands.export:export"),
    "run": ("causalprune.config.run:RunConfig", "causalprune.commands.run:run"),
    "sweep": ("causalprune.config.sweep:SweepConfig", "causalprune.commands.sweep.command:sweep"),
    "report": ("causalprune.config.report:ReportConfig", "causalprune.commands.report:report"),
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

_PARAMETERS = re.compile(r"`([a-z]\w*(?:=[^`,]+)?(?:, [a-z]\w*=[^`,]+)*)`")
"""A parameter in backticks, or several with their values, such as ``momentum=0, stride=1``."""

GROUPS = {"store": "Verify, export, compact or merge trajectory stores."}
"""The help of commands that share their first word."""


def load_configs() -> dict[str, type[Options]]:
    """The class of every command's options."""
    return {name: CONFIGS.load(name) for name in CONFIGS}


def with_flags(message: str, *others: type[Options]) -> str:
    """Name options as users type them: ``--momentum 0`` for the `` `momentum=0` `` of an error.

    Args:
        message: What the library said. Other words in backticks stay as they are.
        others: Classes of options that are no command's own.
    """

    def flags(match: re.Match[str]) -> str:
        # A parameter that is an option of one command and an argument of a later one is named by the option.
        known = {
            name: re.split("[/,]", flag_of(f))[0]
            for config in (*others, *reversed(load_configs().values()))
            for name, f in config.option_fields().items()
        }
        settings = [setting.partition("=") for setting in match[1].split(", ")]
        if not all(name in known for name, _, _ in settings):
            return match[0]
        return " ".join(f"{known[name]} {value}".rstrip() for name, _, value in settings)

    return _PARAMETERS.sub(flags, message)
