"""The commands of the command line, made from the table of commands."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import typer
from causalprune_cli.builder import add_command, help_of
from causalprune_cli.session import Session

from causalprune.commands.names import GROUPS, load_configs
from causalprune.config.sources import resolve

_SHOWN_BY = ("causalprune_cli.show", "causalprune_cli.show_diagnosis", "causalprune_cli.show_store")
"""Modules with functions, named like the commands, that make something printable of a result."""


def add_commands(app: typer.Typer) -> None:
    """Add every command to the command line; those of two words in groups by their first."""
    groups = {"": app}
    for command, config in load_configs().items():
        group, _, name = command.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(name=group, help=GROUPS[group], epilog=help_of(config)[1])
        add_command(groups[group], name, config, partial(_run, command))
    for group in GROUPS:
        app.add_typer(groups[group])


def _run(command: str, session: Session, given: dict[str, Any]) -> None:
    configure = partial(resolve, load_configs(), command, given, session.config_file)
    session.run(command, configure, partial(_show, command))


def _show(command: str, result: Any) -> Any:
    """Something that rich can print of a result; rich is imported when there is one."""
    function = command.replace("-", "_").replace(" ", "_")
    for module in map(import_module, _SHOWN_BY):
        if hasattr(module, function):
            return getattr(module, function)(result)
    return import_module(_SHOWN_BY[0]).metrics(result)
