"""Tables that fit the terminal: what doesn't fit beside each other goes under each other, and nothing is cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

_GAP = 2
"""Spaces between columns."""

_NARROWEST_NAME = 20
"""Names are folded down to this width before the columns are parted."""


@dataclass
class Sheet:
    """Rows of text, numbers aligned on the right; rich prints it in as many tables as it takes.

    Attributes:
        columns: Their titles.
        title: Shown in bold above.
        named: Whether the first column names the rows, on the left of each part; otherwise it holds numbers too.
        left: Other columns that are aligned on the left and may be folded.
        pad_edge: Whether there is a space at the edges.
    """

    columns: Sequence[str]
    title: str = ""
    named: bool = True
    left: frozenset[str] = frozenset()
    pad_edge: bool = False
    rows: list[list[Text]] = field(default_factory=list)

    def add_row(self, *cells: str | Text) -> None:
        """Add a row; cells that are missing at its end are empty."""
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self.rows.append(texts + [Text()] * (len(self.columns) - len(texts)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self.title:
            yield Text(self.title, style="bold")
        width = options.max_width - (2 if self.pad_edge else 0)
        for number, part in enumerate(self._parts(width)):
            if number:
                yield Text()
            yield self._table(part, width)

    def _parts(self, width: int) -> list[list[int]]:
        """The columns of each table, such that each fits; the names are in all of them."""
        first = [0] if self.named else []
        others = list(range(len(first), len(self.columns)))
        parts: list[list[int]] = [[*first]]
        for column in others:
            if parts[-1] != first and self._least([*parts[-1], column]) > width:
                parts.append([*first])
            parts[-1].append(column)
        # As many columns in each, if that fits as well.
        most = math.ceil(len(others) / len(parts))
        even = [[*first, *others[start : start + most]] for start in range(0, len(others), most or 1)]
        return even if even and all(self._least(part) <= width for part in even) else parts

    def _table(self, columns: list[int], width: int) -> Table:
        made = Table(box=None, pad_edge=self.pad_edge)
        folded = [column for column in columns if self._folds(column)]
        room = width - sum(self._width(c) for c in columns if c not in folded) - _GAP * (len(columns) - 1)
        for column in columns:
            if column in folded:
                others = sum(self._narrowest(c) for c in folded if c > column)
                own = max(1, min(self._width(column), room - others))
                room -= own
                made.add_column(Text(self.columns[column]), width=own, overflow="fold")
            else:
                made.add_column(
                    Text(self.columns[column]), justify="right", no_wrap=True, min_width=self._width(column)
                )
        for row in self.rows:
            made.add_row(*(row[column] for column in columns))
        return made

    def _folds(self, column: int) -> bool:
        return (self.named and column == 0) or self.columns[column] in self.left

    def _least(self, columns: Iterable[int]) -> int:
        """The width that a table of these columns needs."""
        widths = [self._narrowest(c) if self._folds(c) else self._width(c) for c in columns]
        return sum(widths) + _GAP * (len(widths) - 1)

    def _width(self, column: int) -> int:
        texts = [self.columns[column], *(line for row in self.rows for line in row[column].plain.splitlines())]
        return max(map(cell_len, texts))

    def _narrowest(self, column: int) -> int:
        return min(self._width(column), _NARROWEST_NAME)
