"""Rows of a table that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def grouped(rows: Iterable[Row], names: Sequence[str]) -> list[tuple[dict[str, Any], list[Row]]]:
    """The rows that agree in these fields together, with the fields, in the order in which each group begins."""
    groups: dict[str, tuple[dict[str, Any], list[Row]]] = {}
    for row in rows:
        settings = {name: row[name] for name in names}
        groups.setdefault(repr(settings), (settings, []))[1].append(row)
    return list(groups.values())
