"""Tables and lines that several commands show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from causalprune.base.errors import printable
from causalprune.base.units import format_bytes, mean_and_spread, percent

from .sheet import Sheet

SHOWN_CLASSES = 10
"""Up to this many classes are listed."""


def facts(result: Any, lines: dict[str, str], last: Mapping[str, str] = MappingProxyType({})) -> Table:
    """Lines of a result, the paths of its outputs, and what is to be said last."""
    return pairs(lines | {f"→ {role}": path for role, path in result.outputs.items()} | dict(last))


def pairs(lines: dict[str, str]) -> Table:
    """Names in bold, values beside them."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in lines.items():
        made.add_row(printable(name), Text(printable(value)))
    return made


def table(
    *columns: str, title: str = "", named: bool = True, left: Iterable[str] = (), pad_edge: bool = False
) -> Sheet:
    """A table of numbers, aligned on the right.

    Args:
        columns: Titles of the columns.
        title: Shown in bold above the table.
        named: Whether the first column names the rows; otherwise it holds numbers too.
        left: Columns of words besides the first.
        pad_edge: Whether there is a space at the edges.
    """
    return Sheet(columns, title, named, frozenset(left), pad_edge)


def records(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]], **style: Any) -> Sheet:
    """A table with one row per record.

    Args:
        columns: The field of each column and its format, such as ``sparsity:share``, by the column's title.
        rows: The records.
        style: As for :func:`table`.
    """
    made = table(*columns, **style)
    fields = [field.partition(":")[::2] for field in columns.values()]
    for row in rows:
        made.add_row(*(printable(shown(row[name], form)) for name, form in fields))
    return made


def shown(value: Any, form: str = ".3g") -> str:
    """A value as text, or a dash for a missing one.

    Args:
        value: By default a number, of which three digits are shown.
        form: As for :func:`format`, or ``bytes`` for a size, ``ms`` for seconds in milliseconds, or ``share`` for a
            fraction in percent, with as many digits as it takes not to round it to 100 %.
    """
    if value is None:
        return "–"
    if form == "share":
        return f"{percent(value, 2)}%"
    if form == "ms":
        return f"{1000 * value:.3g} ms"
    return format_bytes(value) if form == "bytes" else format(value, form)


def counted(count: int, noun: str) -> str:
    """A number of things: ``1 row``, ``2 rows``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def classes_line(classes: Sequence[str]) -> dict[str, str]:
    """A line that says which class each output is; none if they are called by their numbers."""
    if list(classes) == [str(number) for number in range(len(classes))]:
        return {}
    first = [f"{number} = {name!r}" for number, name in enumerate(classes[:SHOWN_CLASSES])]
    return {"classes": ", ".join(first) + (f", … ({len(classes)})" if len(classes) > SHOWN_CLASSES else "")}


def with_spread(mean: float | None, spread: float | None, **form: Any) -> str:
    """A mean with its standard deviation, both of which may be missing; ``form`` as in :func:`mean_and_spread`."""
    return " ".join(filter(None, mean_and_spread(mean, spread, **form)))


def notes(*lines: str) -> Group:
    """Remarks below a table."""
    return Group(*(Text(line, style="dim") for line in lines))


def bullets(*lines: str) -> Table:
    """Sentences with a bullet each; what a line has no room for goes under its first word."""
    made = Table.grid(padding=(0, 1))
    made.add_column(width=1)
    made.add_column(overflow="fold")
    for line in lines:
        made.add_row("•", Text(printable(line)))
    return made


def spaced(*parts: Any) -> Group:
    """Parts with an empty line between them, without those that are None."""
    lines = [line for part in parts if part is not None for line in (Text(), part)]
    return Group(*lines[1:])


def recipe_line(recipe: dict[str, Any]) -> str:
    """A recipe's name, and what was said instead of its own values."""
    changes = recipe["changes"]
    return f"{recipe['name']}{', but ' if changes else ''}{', '.join(changes)}"
