"""Tables and lines that several commands show."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from causalprune.base.units import mean_and_spread


def metrics(result: Any) -> Any:
    """The metrics of a command that has no table of its own."""
    return facts(result, {name.replace("_", " "): str(value) for name, value in result.to_json()["metrics"].items()})


def facts(result: Any, lines: dict[str, str]) -> Table:
    """Lines of a result, and the paths of its outputs."""
    return pairs({**lines, **{f"→ {role}": path for role, path in result.outputs.items()}})


def pairs(lines: dict[str, str]) -> Table:
    """Names in bold, values beside them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(name, Text(value))
    return table


def number(value: float | None) -> str:
    """Three digits, or a dash for a missing value."""
    return "–" if value is None else f"{value:.3g}"


def with_spread(mean: float | None, spread: float | None, **form: Any) -> str:
    """A mean with its standard deviation, both of which may be missing; ``form`` as in :func:`mean_and_spread`."""
    return " ".join(filter(None, mean_and_spread(mean, spread, **form)))


def numbers(*columns: str, title: str = "", pad_edge: bool = True, no_wrap: bool = False) -> Table:
    """A table whose first column names its rows; the others hold numbers.

    Args:
        columns: Titles of the columns.
        title: Shown in bold above the table.
        pad_edge: Whether to pad both sides.
        no_wrap: Whether to keep the names on one line.
    """
    table = Table(
        title=Text(title) if title else None, title_justify="left", title_style="bold", box=None, pad_edge=pad_edge
    )
    table.add_column(columns[0], no_wrap=no_wrap, overflow="ellipsis" if no_wrap else "fold")
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table
