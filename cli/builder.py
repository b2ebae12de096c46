"""Make a Typer command of a stage's configuration: one option a field, in panels by the class that declares it."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from causalprune_cli.session import Session

from causalprune.options import Options, default_of, flag_of
from causalprune.settings import resolve

_PANELS = {
    "RuntimeOptions": "Run directory",
    "OutputOptions": "Run directory",
    "LeaseOptions": "Run directory",
    "ComputeOptions": "Compute",
    "DataOptions": "Data",
    "ModelOptions": "Model",
    "TrainingOptions": "Training",
}
_OUTPUT_PANEL = "Output"


def stage_command(
    app: typer.Typer,
    name: str,
    config: type[Options],
    *,
    stage: str,
    example: str,
    show: Callable[[Any], Any],
    file_argument: bool = False,
) -> None:
    """Add a stage to the command line.

    Args:
        app: The application.
        name: Name of the command.
        config: The stage's configuration; its docstring is the command's help.
        stage: Name of the stage.
        example: A command line that works as it stands.
        show: Makes something that rich can print of the stage's result.
        file_argument: Whether the TOML file is an argument of its own rather than ``--config FILE``.
    """

    def command(
        config_file: Path | None, json: bool, verbose: bool, quiet: bool, debug: bool, log_json: bool, **given: Any
    ) -> None:
        session = Session(json=json, verbose=verbose, quiet=quiet, debug=debug, log_json=log_json)
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None and v != []}
        session.run(stage, lambda: resolve(config, stage, values, config_file), show)

    command.__signature__ = inspect.Signature(_parameters(config, file_argument))  # type: ignore[attr-defined]
    command.__doc__ = inspect.getdoc(config)
    app.command(name, epilog=f"Example: {example}")(command)


def _parameters(config: type[Options], file_argument: bool) -> list[inspect.Parameter]:
    own_first = sorted(fields(config), key=lambda f: _declaring_class(config, f).__name__ in _PANELS)  # type: ignore[arg-type]
    hints = get_type_hints(config)
    parameters = [_parameter(config, f, hints[f.name]) for f in own_first]
    file = typer.Option("--config", help="TOML file with options.", metavar="FILE", rich_help_panel=_OUTPUT_PANEL)
    if file_argument:
        file = typer.Argument(help="TOML file with options.", metavar="FILE", show_default=False)
    parameters.append(_keyword("config_file", Path | None, None, file))
    output = {
        "json": (bool, False, typer.Option("--json", help="Print one JSON object instead of a table.")),
        "verbose": (bool, False, typer.Option("--verbose", "-v", help="Log more on stderr.")),
        "quiet": (bool, False, typer.Option("--quiet", "-q", help="No progress and no warnings.")),
        "debug": (bool, False, typer.Option("--debug", help="Show the traceback of an error.")),
        "log_json": (bool, False, typer.Option("--log-json", help="Log one JSON object a line; no bars.")),
    }
    for name, (annotation, default, declared) in output.items():
        declared.rich_help_panel = _OUTPUT_PANEL
        parameters.append(_keyword(name, annotation, default, declared))
    return parameters


def _parameter(config: type[Options], f: Field[Any], annotation: Any) -> inspect.Parameter:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) is tuple:
        annotation = list[str]
    if f.metadata["parse"] is not None:
        annotation = str
    flag, default = flag_of(f), default_of(f)
    help_text = f.metadata["help"]
    if default not in (None, "", (), False):
        help_text += f" [{'yes' if default is True else default}]"
    # Rich takes words in brackets for markup, and would leave out a default such as [run/trajectory.zarr].
    help_text = re.sub(r"\[(?=[a-z/@#])", r"\\[", help_text)
    choices = getattr(f.metadata["check"], "choices", None)
    metavar = f.metadata["metavar"] or ("|".join(choices) if choices else None)
    if not flag.startswith("-"):
        argument = typer.Argument(help=help_text, metavar=f"[{flag}]", show_default=False)
        return _keyword(f.name, annotation | None, None, argument)
    panel = _PANELS.get(_declaring_class(config, f).__name__)
    declared = typer.Option(flag, help=help_text, metavar=metavar, show_default=False, rich_help_panel=panel)
    return _keyword(f.name, annotation | None, None, declared)


def _keyword(name: str, annotation: Any, default: Any, declared: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, declared])


def _declaring_class(config: type[Options], f: Field[Any]) -> type:
    return next(c for c in config.__mro__ if f.name in inspect.get_annotations(c))
