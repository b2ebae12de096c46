"""An HTML page in one file: headings, text, tables, pictures that a browser makes charts of, for screens of any width.

It loads nothing: the pictures are in it as PNG files, and the script that draws charts in their place is, too. Without
the script, on paper, and where a chart fails, the pictures are shown.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from causalprune.base.errors import storage_errors

GENERATOR = "causalprune report"
"""The generator that the head of a page names."""

MOST_VALUES = 6
"""Of more values of a fact, the others are folded."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: Its text.
        spread: An addition in smaller type, such as ``±0.3``.
        best: Whether it is bold.
        value: The number behind the text, for the table's file; None if there is none.
        deviation: The number behind the addition.
    """

    text: str
    spread: str = ""
    best: bool = False
    value: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        path: A PNG file.
        text: What it shows, in words.
        chart: What a browser draws in its place, if it can.
        dark: The PNG file for dark pages; None if there is no other.
    """

    path: Path
    text: str
    chart: dict[str, Any] | None = None
    dark: Path | None = None


@dataclass(frozen=True)
class Link:
    """A text that leads to a file beside the page; ``href`` is a relative URL."""

    text: str
    href: str


class Page:
    """Collects the parts of a page; the template escapes all text.

    Args:
        title: Title of the window and of the page.
        script: Source of plotly.js; None for pictures only.
    """

    def __init__(self, title: str, script: str | None = None) -> None:
        self._title = title
        self._script = script
        self._parts: list[dict[str, Any]] = []
        self._charts: list[dict[str, Any]] = []
        self.tables: dict[str, bytes] = {}
        """The tables as CSV files, by name."""
        self.drawn: list[str] = []
        """The files of the pictures, by name."""
        self.beside: list[str] = []
        """SHA-256 of each file beside the page that belongs to it, by which a later report knows it again."""

    def heading(self, text: str, level: int = 2) -> None:
        """Add a heading of level 2 or 3."""
        number = sum(part["kind"] == "heading" for part in self._parts) + 1
        self._parts.append({"kind": "heading", "text": text, "level": level, "id": f"part-{number}"})

    def text(self, text: str, style: str = "") -> None:
        """Add a paragraph; ``style`` is ``found``, ``lead``, ``note`` or empty."""
        self._parts.append({"kind": "text", "text": text, "style": style})

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | Cell]], name: str = "") -> None:
        """Add a table, which scrolls if it is wider than the screen; the first column names the rows.

        Args:
            head: Names of the columns.
            rows: The cells.
            name: Name of the CSV file that has the same table, in :attr:`tables`; empty for none.
        """
        cells = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        self._parts.append({"kind": "table", "head": head, "rows": cells, "csv": name})
        if name:
            self.tables[name] = csv_of(head, cells)

    def pictures(self, drawn: Sequence[Picture], *, small: bool = False) -> None:
        """Add pictures side by side, as many per row as fit."""
        pictures: list[dict[str, Any]] = []
        for picture in drawn:
            shown: dict[str, Any] = {"text": picture.text, "chart": None}
            for name, path in (("base64", picture.path), ("dark", picture.dark)):
                shown[name] = base64.b64encode(path.read_bytes()).decode() if path else ""
                self.drawn += [path.name] if path else []
            if picture.chart is not None and self._script is not None:
                shown["chart"] = len(self._charts)
                self._charts.append(picture.chart)
            pictures.append(shown)
        self._parts.append({"kind": "pictures", "pictures": pictures, "small": small})

    def facts(self, rows: Sequence[tuple[str, Sequence[str | Link]]], summary: str = "") -> None:
        """Add a list of names and what they are, many of one folded; with a ``summary``, all folded under it."""
        shown = [(name, [Link(v, "") if isinstance(v, str) else v for v in values]) for name, values in rows]
        self._parts.append({"kind": "facts", "rows": shown, "summary": summary})

    def html(self) -> str:
        """Render the page."""
        from jinja2 import Environment, StrictUndefined

        environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        return environment.from_string(_resource("page.html.j2")).render(
            title=self._title,
            generator=GENERATOR,
            beside=" ".join(self.beside),
            parts=self._parts,
            contents=[part for part in self._parts if part["kind"] == "heading" and part["level"] == 2],
            # The template escapes the data of the charts for a script element.
            charts=self._charts,
            most=MOST_VALUES,
            library=self._script if self._charts else None,
            style=_resource("page.css"),
            drawing=_resource("page.js"),
        )


def _resource(name: str) -> str:
    return files("causalprune.analysis.report").joinpath(name).read_text(encoding="utf-8")


def csv_of(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    """A table as a CSV file: numbers in full, and deviations in columns of their own."""
    spread = [any(row[at].deviation is not None for row in rows if at < len(row)) for at in range(len(head))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names: list[str] = []
    for name, has in zip(head, spread, strict=True):
        names += [name, f"{name}, standard deviation"] if has else [name]
    writer.writerow(names)
    for row in rows:
        line: list[Any] = []
        for cell, has in zip(row, spread, strict=True):
            line.append(cell.text if cell.value is None else repr(cell.value))
            line += [("" if cell.deviation is None else repr(cell.deviation))] if has else []
        writer.writerow(line)
    return text.getvalue().encode()


def is_page(path: Path) -> bool:
    """Whether a file is a page of a report."""
    if not path.is_file():
        return False
    with storage_errors(path, "read"), path.open("rb") as file:
        return f'content="{GENERATOR}"'.encode() in file.read(1000)
