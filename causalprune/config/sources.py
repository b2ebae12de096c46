"""Sources of a configuration's values: the command line, then the environment, then a TOML file, then the defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_origin

from causalprune.base.errors import UsageError, storage_errors
from causalprune.base.files import require_file
from causalprune.base.options import Options, option_text
from causalprune.config.values import convert, known

PREFIX = "CAUSALPRUNE_"

_ADDED = ("set", "vary")
"""Options whose values from all sources are concatenated: each value sets another option, and the last one wins."""


def resolve(
    commands: Mapping[str, type[Options]],
    name: str,
    given: Mapping[str, Any],
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    unless_said: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Build a command's configuration.

    Args:
        commands: The configuration of every command, by name; a file may have options of all.
        name: The command, such as ``fit-gamma``; the table of that name in the file applies.
        given: The options that the command line gives, by field name.
        file: TOML file; keys outside a table apply to every command that has the option.
        environment: ``CAUSALPRUNE_<OPTION>`` applies to every command that has the option.
        unless_said: Values of options that none of these gives, instead of their defaults.

    Returns:
        An instance of ``commands[name]``.

    Raises:
        UsageError: An unknown option or an invalid value; the error names its source.
    """
    kind = commands[name]
    said = [] if file is None else _from_file(commands, name, file)
    for option in kind.option_fields():
        variable = PREFIX + option.upper()
        if variable in environment:
            said.append((option, convert(kind, option, environment[variable], variable)))
    values = dict(unless_said)
    for option, value in [*said, *given.items()]:
        values[option] = (*values.get(option, ()), *value) if option in _ADDED else value
    return kind.of(**values)


def _from_file(commands: Mapping[str, type[Options]], name: str, file: Path) -> list[tuple[str, Any]]:
    """Options and their values, weakest first; every key in the file must be an option of some command."""
    # All options of all commands, which take as long to import as a command without them takes to start.
    from causalprune.config.run import RUN_STAGES, Setting
    from causalprune.config.sweep_values import Axis

    kind = commands[name]
    options = kind.option_fields()
    # In the file of a sweep, a list for an option that takes one value varies that option.
    sweeps = "vary" in options
    tables = RUN_STAGES if sweeps else {**commands, **RUN_STAGES}
    somewhere = list(options) if sweeps else sorted({o for c in commands.values() for o in c.option_fields()})
    # The table of a stage applies to that stage inside a run as well, unless --set overrides it.
    inside: list[Setting] = []
    common: list[tuple[str, Any]] = []
    own: list[tuple[str, Any]] = []
    for table, said, value in _entries(_read_toml(file), tables, file):
        source = f"{table}.{said} in {file}" if table else f"{said} in {file}"
        of = tables[table] if table else kind
        what = f"an option of {table or (name if sweeps else 'a command')}"
        option = known(said.replace("-", "_"), of.option_fields() if table else somewhere, source, what)
        mine, of_a_run = table in ("", name), table in RUN_STAGES and "set" in options
        if sweeps and isinstance(value, list) and get_origin(of.option_types()[option]) is not tuple:
            common.append(("vary", (Axis.from_file(f"{table}.{option}" if table else option, value, source),)))
        elif mine and option in options:
            (own if table else common).append((option, convert(kind, option, value, f"{said} in {file}")))
        elif of_a_run:
            inside.append(Setting.of(table, said, value, f"{table}.{said}={option_text(value)}", source))
    inside.sort(key=lambda setting: list(RUN_STAGES).index(setting.stage))
    return [("set", tuple(inside)), *common, *own] if inside else [*common, *own]


def _entries(contents: Mapping[str, Any], tables: Mapping[str, Any], file: Path) -> Iterator[tuple[str, str, Any]]:
    """Table (empty for keys outside a table), key and value of every line."""
    for key, value in contents.items():
        if not isinstance(value, dict):
            yield "", key, value
            continue
        known(key, tables, f"table [{key}] in {file}", "the name of a stage")
        yield from ((key, inner, inner_value) for inner, inner_value in value.items())


def _read_toml(file: Path) -> dict[str, Any]:
    require_file(file, expected="a TOML file")
    try:
        with storage_errors(file, "read"):
            return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}", expected="TOML", found=f"a mistake: {error}") from error
