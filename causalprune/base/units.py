"""Quantities as people write them: ``2GiB`` of memory, a checkpoint every ``10min`` or ``500steps``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """Read a size such as ``512MB`` (powers of 1000) or ``2GiB`` and ``2G`` (powers of 1024).

    Raises:
        ValueError: The text isn't such a size, or the size is zero.
    """
    match = _NUMBER.fullmatch(text)
    if not match or match[2].upper() not in _BYTES:
        raise ValueError(text)
    size = int(float(match[1]) * _BYTES[match[2].upper()])
    if size <= 0:
        raise ValueError(text)
    return size


def format_bytes(count: float) -> str:
    """A size for people, in powers of 1000: ``format_bytes(1_234_567) == "1.23 MB"``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        # From 999.5 on, rounding would carry into a fourth digit.
        if abs(count) < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 999.5 else f"{count:.3g} {unit}"


_MINUTE, _HOUR = 60, 3600


def format_seconds(seconds: float) -> str:
    """A time for people: ``format_seconds(250) == "4 min"``."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"


def percent(fraction: float, digits: int | None = None) -> str:
    """A fraction in percent, without the percent sign; only a fraction of 1 is shown as 100.

    Args:
        fraction: A number in [0, 1].
        digits: Smallest number of decimal places; by default as many as the number has.

    Example:
        >>> percent(0.9), percent(0.9, 1), percent(0.999999, 1), percent(1, 1)
        ('90', '90.0', '99.9999', '100.0')
    """
    if digits is None:
        return f"{100 * fraction:.10g}"
    while float(text := f"{100 * fraction:.{digits}f}") >= 100 > 100 * fraction:
        digits += 1
    return text


def scientific(value: float, digits: int = 3) -> str:
    """A number of so many significant digits, as charts and tables of small numbers have it.

    Example:
        >>> scientific(-0.0000123), scientific(0.25), scientific(-2e-12)
        ('−1.23e-5', '0.25', '−2e-12')
    """
    number, sign, exponent = f"{value:.{digits}g}".partition("e")
    return number.replace("-", "−") + (f"e{int(exponent)}" if sign else "")


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in one line: all of a few, the first of many.

    Example:
        >>> listed(["a", "b"]), listed(["a", "b", "c", "d"], 2)
        ('a, b', 'a, b and 2 more')
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def moments(values: Sequence[float]) -> dict[str, float | None]:
    """``mean`` and ``std`` of a sample (with n − 1 in the denominator); None where there are too few values."""
    from statistics import mean, stdev

    return {"mean": mean(values) if values else None, "std": stdev(values) if len(values) > 1 else None}


def grouped(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Group the rows by the values of these columns; the groups, each with its values, are in order of first row."""
    groups: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    for row in rows:
        settings = {name: row[name] for name in names}
        groups.setdefault(repr(settings), (settings, []))[1].append(row)
    return list(groups.values())


def mean_and_spread(
    mean: float | None, spread: float | None, *, form: str = ".3g", spread_form: str = ".2g", scale: float = 1
) -> tuple[str, str]:
    """A mean and a standard deviation as text; a dash for a missing mean, nothing for a missing deviation.

    Args:
        mean: Mean over seeds or draws.
        spread: Standard deviation of the sample; None for one value.
        form: Format of the mean, as for :func:`format`.
        spread_form: Format of the deviation.
        scale: Factor for both.
    """
    if mean is None:
        return "–", ""
    return format(scale * mean, form), "" if spread is None else f"±{format(scale * spread, spread_form)}"


@dataclass(frozen=True)
class Interval:
    """How often to save: after so many steps or seconds, whichever is finite; never if neither is."""

    steps: float = math.inf
    seconds: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Read ``500steps``, ``90s``, ``10min``, ``2h`` or ``never``.

        Raises:
            ValueError: The text is none of these, or the interval is zero.
        """
        if text == "never":
            return cls()
        match = _NUMBER.fullmatch(text)
        if match and float(match[1]) > 0:
            if match[2] in ("step", "steps") and float(match[1]).is_integer():
                return cls(steps=int(match[1]))
            if match[2] in _SECONDS:
                return cls(seconds=float(match[1]) * _SECONDS[match[2]])
        raise ValueError(text)


def parse_range(text: str) -> tuple[int, int | None]:
    """Read a range of rows: ``10:20``, ``:20``, or ``10:``, which ends with None.

    Raises:
        ValueError: The text is none of these.
    """
    match = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", text)
    if not match or (match[2] and int(match[2]) <= int(match[1] or 0)):
        raise ValueError(text)
    return int(match[1] or 0), int(match[2]) if match[2] else None


def check_parsed(parse: Callable[[str], Any], expected: str) -> Callable[[str], str | None]:
    """A check for :func:`causalprune.base.options.option`: text that ``parse`` reads without a ValueError."""

    def check(text: str) -> str | None:
        try:
            parse(text)
        except ValueError:
            return expected
        return None

    return check


check_bytes = check_parsed(parse_bytes, "a size such as 512MB or 2GiB")
check_interval = check_parsed(Interval.parse, "an interval such as 500steps, 10min or never")
check_range = check_parsed(parse_range, "a range such as 0:10")
