"""From text, or a value of a TOML file, to the type of an option; names that aren't known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from causalprune.errors import UsageError
from causalprune.options import Options, option_text

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


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
        if wanted is bool and not isinstance(value, bool):
            return _switch(str(value).lower())
        if wanted is not bool and (isinstance(value, bool) or (wanted is int and isinstance(value, float))):
            raise ValueError(value)
        return wanted(value)
    except (TypeError, ValueError) as error:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(wanted, "text")
        raise UsageError(source, expected=expected, found=repr(value)) from error


def known_name(said: str, known: Iterable[str], source: str) -> str:
    """The option that is meant, whose words may be joined by dashes.

    Raises:
        UsageError: It isn't among those that are known.
    """
    name = said.replace("-", "_")
    if name not in (known := list(known)):
        raise unknown_option(source, name, known)
    return name


def unknown_option(source: str, name: str, known: list[str]) -> UsageError:
    """The error for a name that isn't known, with the nearest one as a hint."""
    near = difflib.get_close_matches(name, known, n=1)
    return UsageError(
        source, expected="a known name", found=repr(name), remedy=f"did you mean {near[0]}?" if near else "see --help"
    )


def split_list(text: str) -> list[str]:
    """The items of a comma-separated list, without the spaces around them."""
    return [item.strip() for item in text.split(",")]


def _switch(text: str) -> bool:
    if text not in _TRUE + _FALSE:
        raise ValueError(text)
    return text in _TRUE
