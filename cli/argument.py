"""The thing that a command works on, said without a flag: ``evaluate run/final.safetensors``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causalprune.base.errors import DataError, UsageError
from causalprune.base.paths import RunPaths, parse_place
from causalprune.commands.names import ARGUMENTS

if TYPE_CHECKING:
    from causalprune.base.options import Options

NAME = "argument"
"""The name of the parameter; an option of the same meaning keeps that of its field."""

WHERE = "Its folder is the run directory, where outputs go, unless --run or $CAUSALPRUNE_RUN names another."


def argument_of(command: str, config: type[Options]) -> inspect.Parameter | None:
    """The parameter of Typer's function; None for a command whose arguments, if any, are fields of their own."""
    if command not in ARGUMENTS:
        return None
    option, _ = ARGUMENTS[command]
    text, _, default = config.option_fields()[option].metadata["help"].rstrip(".").rpartition(" [")
    help_text = "The run directory. [run]" if option == "run" else f"{text}. {WHERE} [{default}"
    declared = typer.Argument(help=help_text, metavar=_shown(option), show_default=False)
    annotation = Annotated[str | None, declared]
    return inspect.Parameter(NAME, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def help_beside(command: str, option: str) -> str:
    """The help of the option of the same meaning; empty for any other option."""
    if ARGUMENTS.get(command, ("", ""))[0] != option or option == "run":
        return ""
    return f"As {_shown(option)}, but the run directory is that of --run."


def _shown(option: str) -> str:
    return "DIR" if option == "run" else option.upper()


def with_argument(command: str, given: dict[str, Any], configure: Callable[..., Any]) -> Any:
    """Make the configuration of a command whose argument may be said.

    Args:
        command: The command.
        given: What the command line says by the names of options, and the argument as ``argument``.
        configure: Makes the configuration of options that are said and, as ``unless_said``, of weaker ones.

    Raises:
        UsageError: The argument and the option of the same meaning differ.
        DataError: A directory where a checkpoint belongs.
    """
    said = given.pop(NAME, None)
    if said is None:
        return configure(given)
    option, usual = ARGUMENTS[command]
    read = parse_place if option == "store" else Path
    place, other = read(said), given.get(option)
    if other is not None and read(str(other)) != place:
        raise UsageError(f"{said} and --{option} {other}", expected="one of them", found="both")
    if option == "run":
        return configure(given | {option: place})
    if option == "checkpoint" and Path(said).is_dir():
        remedy = f"name a file in it, or pass --run {said}"
        raise DataError(said, expected="a checkpoint", found="a directory", remedy=remedy)
    unless_said: Mapping[str, Any] = {"run": place.parent} if isinstance(place, Path) else {}
    config = configure(given | {option: place}, unless_said=unless_said)
    # The file that is taken anyway: not one of another place, whose results lie beside it.
    return replace(config, **{option: None}) if getattr(RunPaths(config.run), usual) == place else config
