"""Make a Typer command of a configuration: one command-line option per field, in panels by the declaring class."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from causalprune.base.options import Options, flag_of, option_text
from causalprune.config.shared import ComputeOptions, DataOptions, LeaseOptions, ModelOptions, OutputOptions
from causalprune.training.options import TrainingOptions

from .session import Session

_PANELS = {
    f: panel
    # A class has the fields of its bases, too, so that the bases come last.
    for declaring, panel in (
        (TrainingOptions, "Training"),
        (ModelOptions, "Model"),
        (DataOptions, "Data"),
        (ComputeOptions, "Compute"),
        (OutputOptions, "Run directory"),
        (LeaseOptions, "Run directory"),
        (Session, "Output"),
    )
    for f in fields(declaring)
}


def add_command(
    app: typer.Typer, name: str, config: type[Options], run: Callable[[Session, dict[str, Any]], None]
) -> None:
    """Add a command to the command line.

    Args:
        app: The application.
        name: Name of the command in it.
        config: The options.
        run: Takes how the user wants to be talked to, and the options that were given.
    """

    def command(**said: Any) -> None:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if v is not None and v != []}
        session = Session.of(**{name: given.pop(name) for name in Session.option_fields() if name in given})
        run(session, given)

    types = Session.option_types() | config.option_types()
    own_first = sorted(config.option_fields().values(), key=lambda f: f in _PANELS)
    parameters = [_parameter(f, types[f.name], config) for f in (*own_first, *fields(Session))]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__, example = help_of(config)
    app.command(name, epilog=example)(command)


def help_of(config: type[Options]) -> tuple[str, str]:
    """What a command does, and the example that its help ends with."""
    text, _, example = (inspect.getdoc(config) or "").rpartition("\n\nExample: ")
    return text, f"Example: {example}"


def _parameter(f: Field[Any], wanted: Any, config: type[Options]) -> inspect.Parameter:
    flag = getattr(config, "FILE_FLAG", "--config") if f.name == "config_file" else flag_of(f)
    default, metadata = f.default, f.metadata
    if metadata["repeated"]:
        wanted = list[str]
    elif metadata["parse"] is not None:
        wanted = str
    help_text = metadata["help"]
    if default not in (None, "", (), False):
        help_text += f" [{'yes' if default is True else option_text(default)}]"
    # Rich takes words in brackets for markup, and would leave out a default such as [run/trajectory.zarr].
    help_text = re.sub(r"\[(?=[a-z/@#])", r"\\[", help_text)
    choices = getattr(metadata["check"], "choices", None)
    metavar = metadata["metavar"] or ("|".join(choices) if choices else None)
    if flag.startswith("-"):
        declared: Any = typer.Option(
            *flag.split(","), help=help_text, metavar=metavar, show_default=False, rich_help_panel=_PANELS.get(f)
        )
    else:
        shown = flag if f.name == "config_file" else f"[{flag}]"
        declared = typer.Argument(help=help_text, metavar=shown, show_default=False)
    annotation = Annotated[wanted | None, declared]
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
