"""Self-validating options: one declaration gives the default, the help text, the check and the command-line flag.

A stage's configuration is a frozen dataclass whose fields are made by :func:`option`. The command line, the
environment, a TOML file and a library caller all end in the same constructor and are checked by the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any

from causalprune.errors import UsageError
from causalprune.urls import EXPECTED, StoreUrl, is_url_taken_for_path

Check = Callable[[Any], str | None]
"""Takes a value and returns what was expected when the value is wrong, else None."""


def option(
    default: Any,
    help: str,
    *,
    check: Check | None = None,
    flag: str | None = None,
    metavar: str | None = None,
    identifies: bool = True,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """Declare one field of a configuration.

    Args:
        default: Its default; ``None`` means "left out".
        help: One sentence for ``--help``.
        check: Returns what was expected when the value is wrong.
        flag: Command-line flag when it isn't the field's name with dashes; an argument when it has no dashes.
        metavar: Placeholder shown in ``--help``.
        identifies: Whether another value makes another result. Where files lie and how many workers read them doesn't.
        parse: Makes the value of text, or raises UsageError, where the type alone doesn't say how.
    """
    metadata = {
        "help": help,
        "check": check,
        "flag": flag,
        "metavar": metavar,
        "identifies": identifies,
        "parse": parse,
    }
    return field(default=default, metadata=metadata)


def flag_of(f: Field[Any]) -> str:
    """The command-line flag of a field, such as ``--batch-size``."""
    return f.metadata.get("flag") or "--" + f.name.replace("_", "-")


class Options:
    """Base of every configuration: runs each field's check, then the class's own :meth:`check`."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            parse: Callable[[str], Any] | None = f.metadata["parse"] or (
                Path if str(f.type).startswith("Path") else None
            )
            if isinstance(value, str) and parse is not None:
                # Library callers may name a path as text.
                object.__setattr__(self, f.name, parse(value))
                value = getattr(self, f.name)
            if isinstance(value, Path) and is_url_taken_for_path(value):
                place = EXPECTED if f.metadata["parse"] else "a path, because only a store can lie elsewhere"
                raise UsageError(flag_of(f), expected=place, found=repr(str(value)))
            test: Check | None = f.metadata["check"]
            if test is None or (value is None and f.default is None):
                continue
            expected = test(value)
            if expected:
                raise UsageError(flag_of(f), expected=expected, found=_shown(value))
        self.check()

    def check(self) -> None:
        """Reject combinations of options; overridden by subclasses, which call ``super().check()``."""

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    def identifying(self) -> dict[str, Any]:
        """The fields that decide the result, JSON-ready."""
        return {
            f.name: _plain(getattr(self, f.name))
            for f in fields(self)  # type: ignore[arg-type]
            if f.metadata["identifies"]
        }


def default_of(f: Field[Any]) -> Any:
    """The default of a field declared by :func:`option`."""
    return None if f.default is MISSING else f.default


def _plain(value: Any) -> Any:
    if isinstance(value, (Path, StoreUrl)):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    return repr(str(value)) if isinstance(value, (str, Path)) else str(value)


# Checks ---------------------------------------------------------------------------------------------------------------


def positive(value: float) -> str | None:
    """A finite number above 0."""
    return None if math.isfinite(value) and value > 0 else "a finite number above 0"


def not_negative(value: float) -> str | None:
    """A finite number of at least 0."""
    return None if math.isfinite(value) and value >= 0 else "a finite number of at least 0"


def at_least(minimum: int) -> Check:
    """A whole number of at least ``minimum``."""
    return lambda value: None if value >= minimum else f"a whole number of at least {minimum}"


def fraction(value: float) -> str | None:
    """A number in [0, 1)."""
    return None if math.isfinite(value) and 0 <= value < 1 else "a number in [0, 1)"


def open_fraction(value: float) -> str | None:
    """A number in (0, 1)."""
    return None if math.isfinite(value) and 0 < value < 1 else "a number in (0, 1)"


def unit_interval(value: float) -> str | None:
    """A number in (0, 1]."""
    return None if math.isfinite(value) and 0 < value <= 1 else "a number in (0, 1]"


def png_file(value: Path) -> str | None:
    """A file name that ends in ``.png``."""
    return None if value.suffix.lower() == ".png" else "a file name that ends in .png"


def one_of(choices: Sequence[str]) -> Check:
    """One of the given words, with the nearest one as a hint."""
    import difflib

    def check(value: str) -> str | None:
        if value in choices:
            return None
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return "one of " + ", ".join(choices) + hint

    # The command line shows the words as the placeholder.
    check.choices = tuple(choices)  # type: ignore[attr-defined]
    return check
