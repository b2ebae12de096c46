"""What was meant by a command that there isn't, or by an option that a command doesn't have."""

from __future__ import annotations

from collections.abc import Iterable

from causalprune.base.errors import UsageError
from causalprune.base.registry import nearest
from causalprune.commands.names import CONFIGS, in_run

_SAID = {
    **dict.fromkeys(("prune", "mask"), "apply-mask"),
    "fit": "fit-gamma",
    "train": "pretrain",
    **dict.fromkeys(("finetune", "fine-tune", "retrain"), "posttrain"),
    **dict.fromkeys(("test", "eval"), "evaluate"),
}
"""What people say for a command; by spelling alone, another command is nearer, or none."""


def no_such_command(said: str, commands: list[str], see: str) -> UsageError:
    """The error about a command that there isn't, with what may have been meant.

    Args:
        said: The word.
        commands: Those that there are.
        see: The command whose help lists them.
    """
    usual = _SAID.get(said, "")
    near = usual if usual in commands else nearest(said, commands)
    remedy = f"did you mean {near}?" if near else f"see {see} --help"
    return UsageError("command", expected=f"one of {', '.join(commands)}", found=repr(said), remedy=remedy)


def meant(command: str, flag: str, own: list[str]) -> str:
    """The nearest thing that there is, as a remedy; empty if nothing is near.

    Args:
        command: The command, such as ``run``.
        flag: What was said, such as ``--record-lr``.
        own: The flags of the command.
    """
    if command not in CONFIGS or not flag.startswith("--"):
        return _nearest(flag, own)
    settings = _settings(flag.removeprefix("--")) if "--set" in own else []
    if settings:
        # One of the command's own options by another spelling.
        likely = filter(None, [nearest(flag, own, cutoff=0.9), *settings])
        return f"did you mean {_any_of(dict.fromkeys(likely))}?"
    near, others = _nearest(flag, own), ", ".join(name for name in CONFIGS if flag in _flags(name))
    if near and others:
        return f"{near.rstrip('?')}, or the option of {others}?"
    return near or (f"it is an option of {others}" if others else "")


def _nearest(flag: str, own: list[str]) -> str:
    near = nearest(flag, own, cutoff=0.7)
    return f"did you mean {near}?" if near else ""


def _settings(said: str) -> list[str]:
    """The options of stages that a flag may stand for, as ``run`` takes them: ``record-lr``, ``gamma-alpha``, ``lr``.

    A stage is meant by its name or a word of it; without one, all stages that have the option.
    """
    from causalprune.config.run import RUN_STAGES, settable

    named, all_of_them = [], []
    for stage in RUN_STAGES:
        options = {name.replace("_", "-") for name in settable(stage)}
        if said in options:
            all_of_them.append(in_run(stage, said.replace("-", "_")))
        for start in dict.fromkeys((stage, *stage.split("-"))):
            option = said.removeprefix(f"{start}-")
            if option != said and option in options:
                named.append(in_run(stage, option.replace("-", "_")))
    return list(dict.fromkeys(named or all_of_them))


def _any_of(options: Iterable[str]) -> str:
    *first, last = options
    return f"{', '.join(first)} or {last}" if first else last


def _flags(command: str) -> set[str]:
    from causalprune.base.options import flag_of

    return {flag_of(f).partition("/")[0] for f in CONFIGS.load(command).option_fields().values()}
