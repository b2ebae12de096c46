"""Where a configuration's values come from: command line, then environment, then a TOML file, then the defaults."""

from __future__ import annotations

import difflib
import os
import tomllib
import types
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from causalprune.config import STAGE_CONFIGS
from causalprune.errors import DataError, UsageError
from causalprune.files import storage_errors
from causalprune.options import Options

PREFIX = "CAUSALPRUNE_"

RUN_STAGES = ("pretrain", "train", "record", "fit-gamma", "apply-mask", "posttrain", "evaluate")
"""Stages inside a run; ``train``, before each recording, has the options of posttrain."""

C = TypeVar("C", bound=Options)

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def resolve(
    kind: type[C],
    stage: str,
    given: Mapping[str, Any],
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> C:
    """Build a stage's configuration.

    Args:
        kind: Its class.
        stage: Its name on the command line, such as ``fit-gamma``; the file's table of that name applies.
        given: Options from the command line, by field name; those that were left out are missing.
        file: TOML file; keys outside a table apply to every stage that has the option.
        environment: ``CAUSALPRUNE_<OPTION>`` applies to every stage that has the option.

    Raises:
        UsageError: An option that doesn't exist or a value that can't be used, and where it was said.
    """
    table = {} if file is None else _read_toml(file)
    values: dict[str, Any] = {}
    names = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if stage == "sweep" and file is not None:
        from causalprune.sweep.sweep_file import sweep_values

        values = sweep_values(table, file)
    else:
        for key, value in _for_stage(table, stage, file):
            if key in names:
                values[key] = convert(kind, names[key], value, f"{key} in {file}")
    listed = {name: values.get(name, ()) for name in ("set", "vary")}
    for name, f in names.items():
        text = environment.get(PREFIX + name.upper())
        if text is not None:
            values[name] = convert(kind, f, text, PREFIX + name.upper())
    values |= given
    if stage == "sweep":
        # What the command line says comes behind what the file says, and holds.
        values |= {name: (*lines, *given.get(name, ())) for name, lines in listed.items()}
    if stage == "run":
        # A stage's table holds for that stage inside a run as well, below what --set says.
        lines = [
            f"{other}.{key}={setting_text(value)}"
            for other in RUN_STAGES
            if isinstance(table.get(other), dict)
            for key, value in table[other].items()
        ]
        values["set"] = (*lines, *values.get("set", ()))
    return kind(**values)


def apply_settings(kind: type[C], stage: str, values: dict[str, Any], settings: tuple[str, ...]) -> C:
    """Build a stage's configuration inside a run, from ``STAGE.OPTION=VALUE`` on top of ``values``.

    Raises:
        UsageError: A setting that names no stage or no option, or a value that can't be used.
    """
    names = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, option = target.partition(".")
        if not (equals and dot):
            raise UsageError("--set", expected="STAGE.OPTION=VALUE", found=repr(setting))
        if name not in RUN_STAGES:
            expected = "one of the stages " + ", ".join(RUN_STAGES)
            raise UsageError(f"--set {setting}", expected=expected, found=repr(name))
        if name != stage:
            continue
        key = option.replace("-", "_")
        if key not in names:
            raise unknown_option(f"--set {setting}", key, list(names))
        values[key] = convert(kind, names[key], text, f"--set {target}")
    return kind(**values)


def convert(kind: type[Options], f: Field[Any], value: Any, source: str) -> Any:
    """Convert text, or a value from TOML, to a field's type.

    Raises:
        UsageError: It can't be converted; ``source`` says where it was found.
    """
    annotation = get_type_hints(kind)[f.name]
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(annotation, "text")
    try:
        if get_origin(annotation) is tuple:
            items = value.split(",") if isinstance(value, str) else value
            return tuple(str(item) for item in items)
        if f.metadata["parse"] is not None:
            return str(value)
        if annotation is bool:
            if isinstance(value, bool):
                return value
            if str(value).lower() not in _TRUE + _FALSE:
                raise ValueError(value)
            return str(value).lower() in _TRUE
        if isinstance(value, bool) or (annotation is int and isinstance(value, float)):
            raise ValueError(value)
        return annotation(value)
    except (TypeError, ValueError) as error:
        raise UsageError(source, expected=wanted, found=repr(value)) from error


def _read_toml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise DataError(f"{file}", expected="a TOML file", found="a directory" if file.is_dir() else "nothing")
    try:
        with storage_errors(file, "read"):
            return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}", expected="TOML", found=str(error)) from error


def _for_stage(table: Mapping[str, Any], stage: str, file: Path | None) -> list[tuple[str, Any]]:
    """The keys that apply to a stage, weakest first; every key in the file must exist somewhere."""
    options = {name: [f.name for f in fields(kind)] for name, kind in STAGE_CONFIGS.items()}
    options["train"] = options["posttrain"]
    common, own = [], []
    for raw, value in table.items():
        key = raw.replace("-", "_")
        if isinstance(value, dict):
            if raw not in options:
                raise unknown_option(f"table [{raw}] in {file}", raw, list(options))
            for inner, inner_value in value.items():
                if inner.replace("-", "_") not in options[raw]:
                    raise unknown_option(f"{raw}.{inner} in {file}", inner.replace("-", "_"), options[raw])
                if raw == stage:
                    own.append((inner.replace("-", "_"), inner_value))
        elif not any(key in names for names in options.values()):
            raise unknown_option(f"{raw} in {file}", key, sorted({n for names in options.values() for n in names}))
        else:
            common.append((key, value))
    return common + own


def unknown_option(source: str, name: str, known: list[str]) -> UsageError:
    """The error for a name that isn't known, with the nearest one as a hint."""
    near = difflib.get_close_matches(name, known, n=1)
    return UsageError(
        source, expected="a known name", found=repr(name), remedy=f"did you mean {near[0]}?" if near else "see --help"
    )


def setting_text(value: Any) -> str:
    """A value from TOML as ``--set`` takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
