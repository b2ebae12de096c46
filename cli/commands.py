"""The commands of the command line: one Typer command per configuration, one option per field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causalprune.commands.names import CONFIGS, GROUPS, WHOLE, Configs, summary

from .completion import completion_of
from .help import Command, Group

if TYPE_CHECKING:
    from causalprune.base.options import Options


def add_commands(app: typer.Typer) -> None:
    """Add all commands to the command line; those of two words are grouped by the first."""
    groups = {"": app}
    for command in sorted(CONFIGS, key=lambda one: WHOLE.index(one) if one in WHOLE else len(WHOLE)):
        group, _, name = command.rpartition(" ")
        if group not in groups:
            help_text, example = GROUPS[group]
            groups[group] = typer.Typer(name=group, cls=Group, help=help_text, epilog=f"Example: {example}")
            app.add_typer(groups[group], rich_help_panel="Stages and files")
        panel = "Start here" if command in WHOLE else "Stages and files" if not group else None
        groups[group].command(name, cls=_Listed, help=summary(command), rich_help_panel=panel)(lambda: None)


class _Listed(Command):
    """A command of which only the name and a line of help are known: its options are imported when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the whole command, which is what runs."""
        grouped = parent is not None and parent.parent is not None
        command = make_command(f"{parent.info_name} {self.name}" if grouped else f"{self.name}")
        return command.make_context(info_name, args, parent=parent, **extra)


def make_command(command: str) -> Command:
    """A command with all of its options.

    Args:
        command: Its name in :data:`causalprune.commands.names.CONFIGS`.
    """
    config = CONFIGS.load(command)
    text, _, example = (inspect.getdoc(config) or "").rpartition("\n\nExample: ")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    name = command.rpartition(" ")[2]
    app.command(name, cls=Command, help=text, epilog=f"Example: {example}")(_function(command, config))
    made = typer.main.get_command(app)
    assert isinstance(made, Command)
    return made


def _function(command: str, config: type[Options]) -> Callable[..., None]:
    """The function that Typer calls with the options of a command."""
    from causalprune.config.sources import resolve

    from .argument import argument_of, help_beside, with_argument
    from .session import Session
    from .show import show

    def call(context: typer.Context, **said: Any) -> None:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if v is not None and v != []}
        session = Session.of(**{name: given.pop(name) for name in Session.option_fields() if name in given})
        configure = partial(resolve, Configs(), command, file=session.config_file)

        def made() -> Any:
            return with_argument(command, _one_list_each(config, given), configure)

        session.run(command, made, partial(show, command), owns_process=bool(context.obj))

    types = Session.option_types() | config.option_types()
    whole = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    argument = argument_of(command, config)
    parameters = [
        whole,
        *([] if argument is None else [argument]),
        *(
            _parameter(f, types[f.name], config, panel, help_beside(command, f.name))
            for f, panel in _in_order(config, fields(Session))
        ),
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _one_list_each(config: type[Options], given: dict[str, Any]) -> dict[str, Any]:
    """What was given, with the text of each list by commas.

    Raises:
        UsageError: A list was given twice: to take the last one would drop what the first one asks for.
    """
    from causalprune.base.errors import UsageError
    from causalprune.base.options import flag_of

    texts = {}
    for name, f in config.option_fields().items():
        if name in given and f.metadata["listed"]:
            text, *others = given[name]
            if others:
                flag, whole = flag_of(f), ",".join(given[name])
                found, remedy = " and ".join(given[name]), f"give them by commas: {flag} {whole}"
                raise UsageError(flag, expected="one list", found=found, remedy=remedy)
            texts[name] = text
    return given | texts


def _in_order(config: type[Options], common: Iterable[Field[Any]]) -> list[tuple[Field[Any], str]]:
    """The options of a command, each with its panel, in the order of the help.

    In a panel the command's own options come first, though in the dataclass those of its bases do.
    """
    from causalprune.base.options import COMMON, PANELS, Options, panels

    panel_of = panels()
    options, first = config.option_fields(), config.first.split()
    inherited = {f for base in config.__bases__ if issubclass(base, Options) for f in fields(base)}

    def rank(f: Field[Any]) -> tuple[int, int, bool]:
        if f.name in first:
            return 0, first.index(f.name), False
        panel = panel_of.get(f, "")
        return PANELS.index(panel), len(first), f in inherited

    ordered = [(f, "" if f.name in first else panel_of.get(f, "")) for f in sorted(options.values(), key=rank)]
    return [*ordered, *((f, COMMON) for f in common)]


def _parameter(f: Field[Any], wanted: Any, config: type[Options], panel: str, help_text: str = "") -> inspect.Parameter:
    from causalprune.base.options import flag_of

    flag = getattr(config, "FILE_FLAG", "--config") if f.name == "config_file" else flag_of(f)
    metadata = f.metadata
    if metadata["repeated"]:
        wanted = list[str]
    elif metadata["parse"] is not None:
        wanted = str
    shows = placeholder(f, wanted)
    if metadata["listed"]:
        wanted = list[str]
    complete = completion_of(f)
    help_text = help_text or _help(f)
    if flag.startswith("-"):
        declared: Any = typer.Option(
            *flag.split(","),
            help=help_text,
            metavar=shows,
            show_default=False,
            rich_help_panel=panel or None,
            autocompletion=complete,
            parser=_number(config, f.name, flag) if wanted in (int, float) else None,
        )
    else:
        shown = flag if f.name == "config_file" else f"[{flag}]"
        declared = typer.Argument(help=help_text, metavar=shown, show_default=False, autocompletion=complete)
    annotation = Annotated[wanted | None, declared]
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _number(config: type[Options], name: str, flag: str) -> Callable[[str], Any]:
    """What reads the value of an option that is a number, as it is read from a file and from the environment."""
    from causalprune.config.values import convert

    def number(text: str) -> Any:
        return convert(config, name, text, flag)

    return number


def placeholder(f: Field[Any], wanted: Any) -> str | None:
    """What stands for the value of an option: ``N`` for a whole number; nothing for a switch."""
    metavar: str | None = f.metadata["metavar"]
    if metavar or wanted is bool:
        return metavar
    if hasattr(f.metadata["check"], "choices") or hasattr(f.metadata["check"], "names"):
        return "NAME"
    return {int: "N", float: "X", Path: "PATH"}.get(wanted, "TEXT")


def described(f: Field[Any]) -> tuple[str, str]:
    """The help of an option, with its choices unless the text itself has them, and its default.

    Where something else decides about the default, the text of the option has it in brackets at its end.
    """
    from causalprune.base.options import option_text

    from .session import with_flags

    text, default = with_flags(f.metadata["help"]), ""
    if match := re.fullmatch(r"(.+) \[([^\[\]]+)\]\.", text):
        text, default = f"{match[1]}.", match[2]
    choices = getattr(f.metadata["check"], "choices", None)
    if choices and not all(re.search(rf"(?<![\w-]){re.escape(choice)}(?![\w-])", text) for choice in choices):
        text += f" One of {', '.join(choices)}."
    if f.default is not None and f.default is not False and f.default not in ("", ()):
        default = "yes" if f.default is True else option_text(f.default)
    return text, default


def _help(f: Field[Any]) -> str:
    text, default = described(f)
    return f"{text} [{default}]" if default else text
