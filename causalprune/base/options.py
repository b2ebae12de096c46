"""Self-validating options: one declaration gives the default, the help text, the check and the command-line flag.

A stage's configuration is a frozen dataclass whose fields are made by :func:`option`. The command line, the
environment, a TOML file and a library caller all end in the same constructor and are checked by the same rules.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from causalprune.base.errors import UsageError
from causalprune.base.paths import EXPECTED, is_url_taken_for_path
from causalprune.base.registry import expected_name

Check = Callable[[Any], str | None]
"""Takes a value and returns what was expected when the value is wrong, else None."""

Parse = Callable[[str, str], Any]
"""Takes text and where it was said, and returns the value, or raises UsageError."""


def option(
    default: Any,
    help: str,
    *,
    check: Check | None = None,
    flag: str | None = None,
    metavar: str | None = None,
    affects_result: bool = True,
    parse: Parse | None = None,
    repeated: bool = False,
) -> Any:
    """Declare one field of a configuration.

    Args:
        default: Its default; ``None`` means "left out".
        help: One sentence for ``--help``.
        check: Returns what was expected when the value is wrong.
        flag: Command-line flag when it isn't the field's name with dashes; an argument when it has no dashes.
        metavar: Placeholder shown in ``--help``.
        affects_result: Whether another value makes another result. Where files lie and how many workers read them
            doesn't.
        parse: Makes the value of text where the type alone doesn't say how; of a repeated option, one item.
        repeated: Whether the flag may be given several times, each adding an item to a tuple.
    """
    metadata = {
        "help": help,
        "check": check,
        "flag": flag,
        "metavar": metavar,
        "affects_result": affects_result,
        "parse": parse,
        "repeated": repeated,
    }
    return field(default=default, metadata=metadata)


def flag_of(f: Field[Any]) -> str:
    """The command-line flag of a field, such as ``--batch-size``; several are joined by commas."""
    return f.metadata.get("flag") or "--" + f.name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every configuration: runs each field's check, then the class's own :meth:`check`."""

    FILE_FLAG: ClassVar[str] = "--config"
    """How the command line takes the TOML file."""

    def __post_init__(self) -> None:
        for f in (f for f in fields(self) if f.metadata):
            value = _from_caller(f, getattr(self, f.name))
            object.__setattr__(self, f.name, value)
            if isinstance(value, Path) and is_url_taken_for_path(value):
                place = EXPECTED if f.metadata["parse"] else "a path, because only a store can lie elsewhere"
                raise UsageError(flag_of(f), expected=place, found=repr(str(value)))
            test: Check | None = f.metadata["check"]
            if test is None or (value is None and f.default is None):
                continue
            require(flag_of(f), value, test)
        self.check()

    def check(self) -> None:
        """Reject combinations of options; overridden by subclasses, which call ``super().check()``."""

    @classmethod
    def option_fields(cls) -> dict[str, Field[Any]]:
        """The options by name, in the order of ``--help``."""
        return {f.name: f for f in fields(cls)}

    @classmethod
    def option_types(cls) -> dict[str, Any]:
        """The type of each option; of one that may be left out, the type that it has when it is given."""
        return {name: _given_type(hint) for name, hint in get_type_hints(cls).items()}

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build a configuration from values of :meth:`option_fields`."""
        return cls(**values)

    def identity_fields(self) -> dict[str, Any]:
        """The fields that decide the result, JSON-ready."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.metadata.get("affects_result")}


def option_text(value: Any) -> str:
    """A value as a person types it: ``true``, ``0.5,0.9``."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _from_caller(f: Field[Any], value: Any) -> Any:
    """A value as the field has it; the command line and library callers may say it as text."""
    parse: Parse | None = f.metadata["parse"]
    if f.metadata["repeated"]:
        return tuple(parse(item, flag_of(f)) if parse and isinstance(item, str) else item for item in value)
    if not isinstance(value, str):
        return value
    if parse:
        return parse(value, flag_of(f))
    return Path(value) if str(f.type).startswith("Path") else value


def _given_type(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(a for a in get_args(hint) if a is not type(None))
    return hint


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def require(name: str, value: Any, check: Check) -> None:
    """Raise a UsageError about ``name`` if the check refuses the value."""
    expected = check(value)
    if expected:
        found = str(value) if isinstance(value, int | float) else repr(option_text(value))
        raise UsageError(name, expected=expected, found=found)


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

    def check(value: str) -> str | None:
        return None if value in choices else expected_name(value, tuple(choices))

    # The command line shows the words as the placeholder.
    check.choices = tuple(choices)  # type: ignore[attr-defined]
    return check
