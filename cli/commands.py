"""The commands of the command line: one Typer command per configuration, one option per field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import Field, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from causalprune.commands.names import CONFIGS, GROUPS, Configs, summary

if TYPE_CHECKING:
    from causalprune.base.options import Options

_PANELS = ("", "Model", "Data", "Training", "Run directory", "Compute", "Output")
"""The panels of ``--help``; the first one has the command's own options."""


def add_commands(app: typer.Typer) -> None:
    """Add all commands to the command line; those of two words are grouped by the first."""
    groups = {"": app}
    for command in CONFIGS:
        group, _, name = command.rpartition(" ")
        if group not in groups:
            help_text, example = GROUPS[group]
            groups[group] = typer.Typer(name=group, help=help_text, epilog=f"Example: {example}")
            app.add_typer(groups[group])
        groups[group].command(name, cls=_Listed, help=summary(command))(lambda: None)


class _Listed(TyperCommand):
    """A command of which only the name and a line of help are known: its options are imported when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the whole command, which is what runs."""
        grouped = parent is not None and parent.parent is not None
        command = make_command(f"{parent.info_name} {self.name}" if grouped else f"{self.name}")
        return command.make_context(info_name, args, parent=parent, **extra)


def make_command(command: str) -> TyperCommand:
    """A command with all of its options.

    Args:
        command: Its name in :data:`causalprune.commands.names.CONFIGS`.
    """
    config = CONFIGS.load(command)
    text, _, example = (inspect.getdoc(config) or "").rpartition("\n\nExample: ")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(command.rpartition(" ")[2], help=text, epilog=f"Example: {example}")(_function(command, config))
    made = typer.main.get_command(app)
    assert isinstance(made, TyperCommand)
    return made


def _function(command: str, config: type[Options]) -> Callable[..., None]:
    """The function that Typer calls with the options of a command."""
    from causalprune.base.options import Options, panels
    from causalprune.config.sources import resolve

    from .session import Session
    from .show import show

    panel_of = panels()

    def call(context: typer.Context, **said: Any) -> None:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if v is not None and v != []}
        session = Session.of(**{name: given.pop(name) for name in Session.option_fields() if name in given})
        configure = partial(resolve, Configs(), command, given, session.config_file)
        session.run(command, configure, partial(show, command), owns_process=bool(context.obj))

    types = Session.option_types() | config.option_types()
    # The command's own options first. In the dataclass, those of its bases come before them.
    inherited = {f for base in config.__bases__ if issubclass(base, Options) for f in fields(base)}
    ordered = sorted(
        config.option_fields().values(), key=lambda f: (_PANELS.index(panel_of.get(f, "")), f in inherited)
    )
    whole = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [
        whole,
        *(_parameter(f, types[f.name], config, panel_of.get(f, "")) for f in (*ordered, *fields(Session))),
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _parameter(f: Field[Any], wanted: Any, config: type[Options], panel: str) -> inspect.Parameter:
    from causalprune.base.options import flag_of, option_text

    from .session import with_flags

    flag = getattr(config, "FILE_FLAG", "--config") if f.name == "config_file" else flag_of(f)
    default, metadata = f.default, f.metadata
    if metadata["repeated"]:
        wanted = list[str]
    elif metadata["parse"] is not None:
        wanted = str
    help_text = with_flags(metadata["help"])
    if default not in (None, "", (), False):
        help_text += f" [{'yes' if default is True else option_text(default)}]"
    # Rich would take a default such as [run/trajectory.zarr] for markup and omit it.
    help_text = re.sub(r"\[(?=[a-z/@#])", r"\\[", help_text)
    choices = getattr(metadata["check"], "choices", None)
    metavar = metadata["metavar"] or ("|".join(choices) if choices else None)
    if flag.startswith("-"):
        declared: Any = typer.Option(
            *flag.split(","),
            help=help_text,
            metavar=metavar,
            show_default=False,
            rich_help_panel=panel or None,
            parser=_number(config, f.name, flag) if wanted in (int, float) else None,
        )
    else:
        shown = flag if f.name == "config_file" else f"[{flag}]"
        declared = typer.Argument(help=help_text, metavar=shown, show_default=False)
    annotation = Annotated[wanted | None, declared]
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _number(config: type[Options], name: str, flag: str) -> Callable[[str], Any]:
    """What reads the value of an option that is a number, as it is read from a file and from the environment."""
    from causalprune.config.values import convert

    def number(text: str) -> Any:
        return convert(config, name, text, flag)

    return number
