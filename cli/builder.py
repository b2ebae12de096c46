"""Make a Typer command of a configuration: one command-line option per field, in panels by the declaring class."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from causalprune_cli.session import Session

from causalprune.config import ComputeOptions, DataOptions, ModelOptions, WritingOptions
from causalprune.options import Options, default_of, flag_of, option_text
from causalprune.training.options import TrainingOptions

_OUTPUT = "Output"
_FILE_HELP = "TOML file with options."
_PANELS = {
    f: panel
    # A class has the fields of its bases, too, so that the bases come last.
    for declaring, panel in (
        (TrainingOptions, "Training"),
        (ModelOptions, "Model"),
        (DataOptions, "Data"),
        (ComputeOptions, "Compute"),
        (WritingOptions, "Run directory"),
    )
    for f in fields(declaring)
}


def add_command(
    app: typer.Typer,
    name: str,
    config: type[Options],
    *,
    example: str,
    run: Callable[[Session, dict[str, Any], Path | None], None],
) -> None:
    """Add a command to the command line.

    Args:
        app: The application.
        name: Name of the command in it.
        config: The options; the class's docstring is the command's help.
        example: A command line that works as it stands.
        run: Takes how the user wants to be talked to, the options that were given, and the TOML file.
    """

    def command(
        config_file: Path | None, json: bool, verbose: bool, quiet: bool, debug: bool, log_json: bool, **given: Any
    ) -> None:
        session = Session(json=json, verbose=verbose, quiet=quiet, debug=debug, log_json=log_json)
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None and v != []}
        run(session, values, config_file)

    command.__signature__ = inspect.Signature(_parameters(config))  # type: ignore[attr-defined]
    command.__doc__ = inspect.getdoc(config)
    app.command(name, epilog=f"Example: {example}")(command)


def _parameters(config: type[Options]) -> list[inspect.Parameter]:
    types = config.option_types()
    own_first = sorted(config.option_fields().values(), key=lambda f: f in _PANELS)
    parameters = [_parameter(f, types[f.name]) for f in own_first]
    file: Any = typer.Option("--config", help=_FILE_HELP, metavar="FILE", rich_help_panel=_OUTPUT)
    if config.FILE_IS_ARGUMENT:
        file = typer.Argument(help=_FILE_HELP, metavar="FILE", show_default=False)
    parameters.append(_keyword("config_file", Path | None, None, file))
    for name, flags, help_text in (
        ("json", ["--json"], "Print one JSON object instead of a table."),
        ("verbose", ["--verbose", "-v"], "Log more on stderr."),
        ("quiet", ["--quiet", "-q"], "No progress and no warnings."),
        ("debug", ["--debug"], "Show the traceback of an error."),
        ("log_json", ["--log-json"], "Log one JSON object a line; no bars."),
    ):
        declared = typer.Option(*flags, help=help_text, rich_help_panel=_OUTPUT)
        parameters.append(_keyword(name, bool, False, declared))
    return parameters


def _parameter(f: Field[Any], wanted: Any) -> inspect.Parameter:
    flag, default, metadata = flag_of(f), default_of(f), f.metadata
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
            flag, help=help_text, metavar=metavar, show_default=False, rich_help_panel=_PANELS.get(f)
        )
    else:
        declared = typer.Argument(help=help_text, metavar=f"[{flag}]", show_default=False)
    return _keyword(f.name, wanted | None, None, declared)


def _keyword(name: str, annotation: Any, default: Any, declared: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, declared])
