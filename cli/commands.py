"""The commands of the command line, made from the table of commands."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from causalprune.commands.names import GROUPS, load_configs
from causalprune.config.sources import resolve

from .builder import add_command, help_of
from .session import Session
from .show import show


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
    session.run(command, configure, partial(show, command))
