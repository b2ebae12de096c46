"""Where a configuration's values come from: command line, then environment, then a TOML file, then the defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from causalprune.config.run import RUN_STAGES, Setting
from causalprune.config.sweep_values import Axis
from causalprune.config.values import convert, known_name, unknown_option
from causalprune.errors import DataError, UsageError
from causalprune.files import storage_errors
from causalprune.options import Options

PREFIX = "CAUSALPRUNE_"

_ADDED = ("set", "vary")
"""Options whose values add up: each is about an option of its own, and what was said last holds."""


def resolve(
    commands: Mapping[str, type[Options]],
    name: str,
    given: Mapping[str, Any],
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Any:
    """Build a command's configuration.

    Args:
        commands: The options of every command, by its name; a file may be about any of them.
        name: The command, such as ``fit-gamma``; the file's table of that name applies.
        given: Options from the command line, by field name; those that were left out are missing.
        file: TOML file; keys outside a table apply to every command that has the option.
        environment: ``CAUSALPRUNE_<OPTION>`` applies to every command that has the option.

    Returns:
        An instance of ``commands[name]``.

    Raises:
        UsageError: An option that doesn't exist or a value that can't be used, and where it was said.
    """
    kind = commands[name]
    said = [] if file is None else _from_file(commands, name, file)
    for option in kind.option_fields():
        variable = PREFIX + option.upper()
        if variable in environment:
            said.append((option, convert(kind, option, environment[variable], variable)))
    values: dict[str, Any] = {}
    for option, value in [*said, *given.items()]:
        values[option] = (*values.get(option, ()), *value) if option in _ADDED else value
    return kind.of(**values)


def _from_file(commands: Mapping[str, type[Options]], name: str, file: Path) -> list[tuple[str, Any]]:
    """Options and their values, weakest first; every key in the file must exist somewhere."""
    kind = commands[name]
    options, types = kind.option_fields(), kind.option_types()
    # In a sweep's file a list is for an option of the sweep, or of a stage, that takes one value.
    lists = "vary" in options
    tables = RUN_STAGES if lists else {**commands, **RUN_STAGES}
    somewhere = list(options) if lists else sorted({o for c in commands.values() for o in c.option_fields()})
    in_stages: list[tuple[str, Any]] = []
    common: list[tuple[str, Any]] = []
    own: list[tuple[str, Any]] = []
    for key, value in _read_toml(file).items():
        if not isinstance(value, dict):
            source = f"{key} in {file}"
            option = known_name(key, somewhere, source)
            if lists and isinstance(value, list) and get_origin(types[option]) is not tuple:
                common.append(("vary", (Axis.from_file(option, value, source),)))
            elif option in options:
                common.append((option, convert(kind, option, value, f"{option} in {file}")))
            continue
        if key not in tables:
            raise unknown_option(f"table [{key}] in {file}", key, list(tables))
        for inner, inner_value in value.items():
            source = f"{key}.{inner} in {file}"
            option = known_name(inner, tables[key].option_fields(), source)
            if key == name:
                own.append((option, convert(kind, option, inner_value, f"{option} in {file}")))
            elif key not in RUN_STAGES or "set" not in options:
                continue
            elif (
                lists and isinstance(inner_value, list) and get_origin(tables[key].option_types()[option]) is not tuple
            ):
                common.append(("vary", (Axis.from_file(f"{key}.{option}", inner_value, source),)))
            else:
                in_stages.append(("set", (Setting.from_file(key, inner, inner_value, source),)))
    # A stage's table holds for that stage inside a run as well, below what --set says.
    in_stages.sort(key=lambda entry: list(RUN_STAGES).index(entry[1][0].stage))
    return [*in_stages, *common, *own]


def _read_toml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise DataError(f"{file}", expected="a TOML file", found="a directory" if file.is_dir() else "nothing")
    try:
        with storage_errors(file, "read"):
            return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}", expected="TOML", found=str(error)) from error
