"""From text, or a value of a TOML file, to the type of an option; names that aren't known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import Options, option_text

_SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off", ""), False)


def convert(kind: type[Options], name: str, value: Any, source: str) -> Any:
    """Convert text, or a value from TOML, to the type of an option.

    Args:
        kind: The configuration that has the option.
        name: The option's.
        value: What was said.
        source: Where it was said, such as ``CAUSALPRUNE_LR`` or ``lr in FILE``, for messages.

    Raises:
        UsageError: It can't be converted.
    """
    wanted, metadata = kind.option_types()[name], kind.option_fields()[name].metadata
    parse = metadata["parse"]
    if metadata["repeated"]:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(parse(str(item), source) if parse else str(item) for item in items)
    if parse:
        return parse(option_text(value), source)
    try:
        if wanted is bool:
            return _SWITCHES[str(value).lower()]
        if isinstance(value, bool) or (wanted is int and isinstance(value, float)):
            raise ValueError(value)
        return wanted(value)
    except (KeyError, TypeError, ValueError) as error:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(wanted, "text")
        raise UsageError(source, expected=expected, found=repr(value)) from error


def known(name: str, names: Iterable[str], source: str) -> str:
    """The name, if it is one of those that are known.

    Raises:
        UsageError: It isn't; the nearest one is a hint.
    """
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else "see --help"
    raise UsageError(source, expected="a known name", found=repr(name), remedy=remedy)


def split_list(text: str) -> list[str]:
    """The items of a comma-separated list, without the spaces around them."""
    return [item.strip() for item in text.split(",")]
