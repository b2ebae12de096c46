"""A sweep file: TOML with options of ``sweep``, tables of the stages' options, and lists of values to combine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from causalprune.config import STAGE_CONFIGS, SweepConfig
from causalprune.errors import UsageError
from causalprune.options import Options
from causalprune.settings import RUN_STAGES, convert, setting_text, unknown_option
from causalprune.sweep.axes import axis_text

_LISTS = ("sparsity", "criterion")


def sweep_values(table: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The options of ``sweep`` that a file gives.

    Args:
        table: The file's contents.
        file: Its name, for messages.

    Returns:
        Fields of :class:`SweepConfig`; every list for an option that takes one value has become a line of ``vary``.

    Raises:
        UsageError: A key that is no option, a table that is no stage of a run, or a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    vary: list[str] = []
    settings: list[str] = []
    for raw, value in table.items():
        if isinstance(value, dict):
            if raw not in RUN_STAGES:
                raise unknown_option(f"table [{raw}] in {file}", raw, list(RUN_STAGES))
            kind = STAGE_CONFIGS["posttrain" if raw == "train" else raw]
            for name, inner in value.items():
                key = _known(kind, name, f"{raw}.{name} in {file}")
                if isinstance(inner, list) and not _is_tuple(kind, key):
                    vary.append(axis_text(f"{raw}.{key}", inner))
                else:
                    settings.append(f"{raw}.{key}={setting_text(inner)}")
            continue
        source = f"{raw} in {file}"
        key = _known(SweepConfig, raw, source)
        if isinstance(value, list) and key in _LISTS:
            values[key] = ",".join(map(str, value))
        elif isinstance(value, list) and not _is_tuple(SweepConfig, key):
            if key in ("seed", "seeds"):
                raise UsageError(source, expected="how many seeds, and seed, the first of them", found=str(value))
            vary.append(axis_text(key, value))
        else:
            field = next(f for f in fields(SweepConfig) if f.name == key)
            values[key] = str(value) if key in _LISTS else convert(SweepConfig, field, value, source)
    values["set"] = (*settings, *values.get("set", ()))
    values["vary"] = (*vary, *values.get("vary", ()))
    return values


def _known(kind: type[Options], raw: str, source: str) -> str:
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    key = raw.replace("-", "_")
    if key not in names:
        raise unknown_option(source, key, names)
    return key


def _is_tuple(kind: type[Options], name: str) -> bool:
    return get_origin(get_type_hints(kind)[name]) is tuple
