"""Options that validate themselves: one declaration gives the default, the help, the check and the flag.

The configuration of a command is a frozen dataclass whose fields are made by :func:`option`. The command line, the
environment, a TOML file and Python code all call the same constructor, so the same checks apply.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from causalprune.base.errors import UsageError
from causalprune.base.paths import EXPECTED, is_url_taken_for_path
from causalprune.base.registry import expected_name

Check = Callable[[Any], str | None]
"""Takes a value and returns None if it is valid, otherwise what was expected.

Where the values are names it has ``choices``, all of them, or ``names``, a function that returns those that are known
where others may be valid, too.
"""

Parse = Callable[[str, str], Any]
"""Takes text and where it comes from; returns the value or raises UsageError."""

COMMON = "Run directory and output"
"""The panel of the help with what nearly every command has."""

PANELS = (
    "",
    "Model",
    "Data",
    "Training",
    "Recording",
    "Fit",
    "Pruning",
    "Measurement",
    "Files",
    "Seed, device and threads",
    COMMON,
)
"""The panels of the help in their order; the first one has the options that matter most."""


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
    listed: bool = False,
    formerly: Any = MISSING,
    panel: str | None = None,
) -> Any:
    """Declare one field of a configuration.

    Args:
        default: Default; ``None`` means "not given".
        help: One sentence for the help of the command line.
        check: See :data:`Check`.
        flag: How the command line takes it, if not by the field's name with dashes. Several flags are joined by
            commas; without dashes it is an argument.
        metavar: Placeholder for the value in the help.
        affects_result: Whether another value gives another result. Paths and the number of workers don't.
        parse: Makes the value from text where the type alone doesn't say how; for a repeated option, one item.
        repeated: Whether the option may be given several times, each time adding an item to a tuple.
        listed: Whether the value is a list by commas; the command line refuses the option twice, of which one list
            would be dropped.
        formerly: The value that stands for what was done before the option existed. There it is left out of the
            identity, so that results of earlier versions keep theirs.
        panel: Where the help shows it, if not in the panel of its class.
    """
    metadata = {
        "help": help,
        "check": check,
        "flag": flag,
        "metavar": metavar,
        "affects_result": affects_result,
        "parse": parse,
        "repeated": repeated,
        "listed": listed,
        "formerly": formerly,
        "panel": panel,
    }
    return field(default=default, metadata=metadata)


def flag_of(f: Field[Any]) -> str:
    """How the command line takes a field: its name after two dashes; a switch that is on can be turned off as well."""
    dashes, name = "--", f.name.replace("_", "-")
    return f.metadata["flag"] or f"{dashes}{name}" + (f"/{dashes}no-{name}" if f.default is True else "")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every configuration: runs each field's check, then the class's own :meth:`check`.

    Attributes:
        panel: Where the help shows the options that a class declares; empty for the first panel. Not inherited.
        first: Names of the options that matter most, separated by spaces: the first panel has these, in this order,
            wherever they are declared. Where it is empty, the first panel has the options without a panel.
    """

    panel: ClassVar[str] = ""
    first: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for f in (f for f in fields(self) if f.metadata):
            value = _from_caller(f, getattr(self, f.name))
            object.__setattr__(self, f.name, value)
            if isinstance(value, Path) and is_url_taken_for_path(value):
                place = EXPECTED if f.metadata["parse"] else "a path, because only a store can lie elsewhere"
                raise UsageError(self.label(f), expected=place, found=repr(str(value)))
            if isinstance(value, Path) and "\0" in str(value):
                raise UsageError(self.label(f), expected="a path", found=repr(str(value)))
            test: Check | None = f.metadata["check"]
            if test is not None and not (value is None and f.default is None):
                require(self.label(f), value, test)
        self.check()

    @staticmethod
    def label(f: Field[Any]) -> str:
        """What an error calls an option: the parameter, unless the options are those of a command."""
        return f"`{f.name}`"

    def check(self) -> None:
        """Reject invalid combinations of options; subclasses that override it call ``super().check()``."""

    @classmethod
    def option_fields(cls) -> dict[str, Field[Any]]:
        """The options by name, in the order of the help."""
        return {f.name: f for f in fields(cls)}

    @classmethod
    def option_types(cls) -> dict[str, Any]:
        """The type of each option; for an optional one, the type without None."""
        return {name: _given_type(hint) for name, hint in get_type_hints(cls).items()}

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build a configuration from values by the names of :meth:`option_fields`."""
        return cls(**values)

    @classmethod
    def decides_result(cls, name: str) -> bool:
        """Whether results with other values of an option are told apart, because it is among the identity fields."""
        metadata = cls.option_fields()[name].metadata
        said_if_new = metadata["formerly"] is not MISSING
        return metadata["affects_result"] and (said_if_new or name in cls.written_out({}))

    def identity_fields(self) -> dict[str, Any]:
        """The options that affect the result, JSON-ready, with every default written out."""
        return self.written_out({f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.metadata})

    @classmethod
    def written_out(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Options as a file has them, in the form of :meth:`identity_fields`: equal for equal work.

        Subclasses add what an option stands for that is left out.

        Args:
            stored: By name; an earlier version may have lacked some, and had others.
        """
        values = {}
        for f in (f for f in fields(cls) if f.metadata.get("affects_result")):
            former = f.metadata["formerly"]
            absent = _plain(f.default if former is MISSING else former)
            value = _same_number(f, stored.get(f.name, absent))
            if former is MISSING or value != absent:
                values[f.name] = value
        return values


def panels() -> dict[Field[Any], str]:
    """The panel of each option of every class so far: its own, or that of the class that declares it."""
    found: dict[Field[Any], str] = {}
    classes: list[type[Options]] = [Options]
    for declaring in classes:
        inherited = {f for base in declaring.__bases__ if issubclass(base, Options) for f in fields(base)}
        panel = vars(declaring).get("panel", "")
        found |= {f: f.metadata.get("panel") or panel for f in set(fields(declaring)) - inherited}
        classes += declaring.__subclasses__()
    return found


def same_options(one: Mapping[str, Any], other: Mapping[str, Any], unsaid: Mapping[str, Any]) -> bool:
    """Whether options mean the same, though they may be said in another way.

    Args:
        one: All options by name, as :meth:`Options.written_out` returns them.
        other: The same of other work.
        unsaid: What options stand for that are left out.
    """
    first, second = ({n: unsaid.get(n) if v in (None, "") else v for n, v in each.items()} for each in (one, other))
    return first == second


def option_text(value: Any) -> str:
    """A value as a person types it: ``true``, ``0.5,0.9``."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def setting_texts(settings: Mapping[str, Any]) -> list[str]:
    """Settings by the names that a table of results has, as a person types them: ``repair.from-statistics=true``."""
    return [f"{name.replace('_', '-')}={option_text(value)}" for name, value in settings.items()]


def _from_caller(f: Field[Any], value: Any) -> Any:
    """A value in the type of its field; callers may give it as text."""
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


def _same_number(f: Field[Any], value: Any) -> Any:
    """1.0 for the 1 that a caller gave where a float belongs: as JSON they differ."""
    return float(value) if type(value) is int and str(f.type).startswith("float") else value


def require(name: str, value: Any, check: Check) -> None:
    """Raise a UsageError about ``name`` if the check refuses the value; of a list it shows the item that is wrong."""
    if each := getattr(check, "each", None):
        for item in value:
            require(name, item, each)
    expected = check(value)
    if expected:
        found = str(value) if isinstance(value, int | float) else repr(option_text(value))
        raise UsageError(name, expected=expected, found=found)


# Checks ---------------------------------------------------------------------------------------------------------------


def _number(is_valid: Callable[[float], bool], expected: str) -> Check:
    """A check for finite numbers."""
    return lambda value: None if math.isfinite(value) and is_valid(value) else expected


positive = _number(lambda v: v > 0, "a finite number above 0")
not_negative = _number(lambda v: v >= 0, "a finite number of at least 0")
rate = _number(lambda v: 0 < v <= 1e18, "a finite number above 0, at most 1e18")
rate_or_zero = _number(lambda v: 0 <= v <= 1e18, "a finite number of at least 0, at most 1e18")


def at_least(minimum: int) -> Check:
    """A whole number of at least ``minimum``."""
    return lambda value: None if value >= minimum else f"a whole number of at least {minimum}"


def _part(is_valid: Callable[[float], bool], expected: str) -> Check:
    """A check for parts of a whole, with a hint where percent may be meant."""

    def check(value: float) -> str | None:
        if is_valid(value):
            return None
        return expected + (f" (did you mean {value / 100:g}?)" if 2 <= value < 100 else "")

    return check


fraction = _part(lambda v: 0 <= v < 1, "a number in [0, 1)")
open_fraction = _part(lambda v: 0 < v < 1, "a number in (0, 1)")
share = _part(lambda v: 0 <= v <= 1, "a number in [0, 1]")
unit_interval = _part(lambda v: 0 < v <= 1, "a number in (0, 1]")


def check_device(value: str) -> str | None:
    """A device."""
    kind, _, number = value.partition(":")
    # PyTorch numbers at most 128 devices, and takes no leading zeros.
    ok = value in ("auto", "cpu", "cuda") or (kind == "cuda" and number in map(str, range(128)))
    return None if ok else "auto, cpu, cuda or cuda:N"


# For the completion of the shell.
check_device.names = lambda: ("auto", "cpu", "cuda")  # type: ignore[attr-defined]


def png_file(value: Path) -> str | None:
    """A file name that ends in ``.png``."""
    return None if value.suffix.lower() == ".png" else "a file name that ends in .png"


def writable(value: Path) -> str | None:
    """A path that ends in a name."""
    return None if value.name and value.name != ".." else "a path that ends in a name"


def different(each: Check, expected: str) -> Check:
    """A list of different items, each of which passes a check.

    Args:
        each: The check of one item.
        expected: The list, as an error names it.
    """

    def check(values: Sequence[Any]) -> str | None:
        return None if len(set(values)) == len(values) and not any(map(each, values)) else expected

    # For the error about one item.
    check.each = each  # type: ignore[attr-defined]
    return check


def one_of(choices: Sequence[str]) -> Check:
    """One of the given words, with the nearest one as a hint."""

    def check(value: str) -> str | None:
        return None if value in choices else expected_name(value, tuple(choices))

    # For the help and the completion of the shell.
    check.choices = tuple(choices)  # type: ignore[attr-defined]
    return check
