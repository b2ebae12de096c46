"""Convert text or TOML values to the type of an option, and reject unknown names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import Options, option_text
from causalprune.base.registry import nearest

_SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off", ""), False)


def convert(kind: type[Options], name: str, value: Any, source: str) -> Any:
    """Convert text, or a value from TOML, to the type of an option.

    Args:
        kind: The configuration with the option.
        name: Name of the option.
        value: The given value.
        source: Where it comes from, such as ``CAUSALPRUNE_LR`` or ``lr in FILE``, for messages.

    Raises:
        UsageError: It can't be converted.
    """
    wanted, metadata = kind.option_types()[name], kind.option_fields()[name].metadata
    parse = metadata["parse"]
    if metadata["repeated"]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise UsageError(source, expected="text or a list of texts", found=repr(value))
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
        hint = _share(value) if wanted is float else ""
        raise UsageError(source, expected=f"{expected}{hint}", found=repr(value)) from error


def _share(value: Any) -> str:
    """The hint that a percentage is a share."""
    text = str(value).strip()
    try:
        return f" (did you mean {float(text.removesuffix('%')) / 100:g}?)" if text.endswith("%") else ""
    except ValueError:
        return ""


def known(name: str, names: Iterable[str], source: str, what: str) -> str:
    """Return a name if it is known.

    Args:
        name: The name.
        names: Those that there are.
        source: Where it was said.
        what: What they are names of, for the message.

    Raises:
        UsageError: It isn't; the nearest known name is the hint.
    """
    names = list(names)
    if name in names:
        return name
    near = nearest(name, names)
    remedy = f"did you mean {near.replace('_', '-')}?" if near else "see --help"
    raise UsageError(source, expected=what, found=repr(name.replace("_", "-")), remedy=remedy)


def split_list(text: str) -> list[str]:
    """The items of a comma-separated list, without surrounding spaces."""
    return [item.strip() for item in text.split(",")]
