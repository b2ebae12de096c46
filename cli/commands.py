"""The commands of the command line: one Typer command per configuration, one option per field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from functools import partial
from typing import Annotated, Any

import typer

from causalprune.base.options import Options, flag_of, option_text, panels
from causalprune.commands.names import GROUPS, load_configs
from causalprune.config.sources import resolve

from .session import Session, with_flags
from .show import show

_PANELS = ("", "Model", "Data", "Training", "Run directory", "Compute", "Output")
"""The panels of ``--help``; the first one has the command's own options."""


def add_commands(app: typer.Typer) -> None:
    """Add all commands to the command line; those of two words are grouped by the first."""
    groups, configs = {"": app}, load_configs()
    panel_of = panels()
    for command, config in configs.items():
        group, _, name = command.rpartition(" ")
        text, _, example = (inspect.getdoc(config) or "").rpartition("\n\nExample: ")
        epilog = f"Example: {example}"
        if group not in groups:
            groups[group] = typer.Typer(name=group, help=GROUPS[group], epilog=epilog)
            app.add_typer(groups[group])
        groups[group].command(name, help=text, epilog=epilog)(_function(command, config, panel_of))


def _function(command: str, config: type[Options], panel_of: Mapping[Field[Any], str]) -> Callable[..., None]:
    """The function that Typer calls with the options of a command."""

    def call(**said: Any) -> None:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if v is not None and v != []}
        session = Session.of(**{name: given.pop(name) for name in Session.option_fields() if name in given})
        configure = partial(resolve, load_configs(), command, given, session.config_file)
        session.run(command, configure, partial(show, command))

    types = Session.option_types() | config.option_types()
    # The command's own options first. In the dataclass, those of its bases come before them.
    inherited = {f for base in config.__bases__ if issubclass(base, Options) for f in fields(base)}
    ordered = sorted(
        config.option_fields().values(), key=lambda f: (_PANELS.index(panel_of.get(f, "")), f in inherited)
    )
    parameters = [_parameter(f, types[f.name], config, panel_of.get(f, "")) for f in (*ordered, *fields(Session))]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _parameter(f: Field[Any], wanted: Any, config: type[Options], panel: str) -> inspect.Parameter:
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
            *flag.split(","), help=help_text, metavar=metavar, show_default=False, rich_help_panel=panel or None
        )
    else:
        shown = flag if f.name == "config_file" else f"[{flag}]"
        declared = typer.Argument(help=help_text, metavar=shown, show_default=False)
    annotation = Annotated[wanted | None, declared]
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
