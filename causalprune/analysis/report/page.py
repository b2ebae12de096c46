"""An HTML page in one file, without scripts: headings, text, tables and pictures, for screens of any width."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.colors import Look
from causalprune.analysis.report.series import Block
from causalprune.base.errors import storage_errors
from causalprune.base.units import percent

GENERATOR = "causalprune report"
"""The generator that the head of a page names."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: Its text.
        spread: An addition in smaller type, such as ``±0.3``.
        best: Whether it is bold.
    """

    text: str
    spread: str = ""
    best: bool = False


class Page:
    """Collects the parts of a page; the template escapes all text.

    Args:
        title: Title of the window and of the page.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[dict[str, Any]] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Add a heading of level 2 or 3."""
        self._parts.append({"kind": "heading", "text": text, "level": level})

    def text(self, text: str, style: str = "") -> None:
        """Add a paragraph; ``style`` is ``lead``, ``note`` or empty."""
        self._parts.append({"kind": "text", "text": text, "style": style})

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> None:
        """Add a table, which scrolls if it is wider than the screen; the first column names the rows."""
        cells = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        self._parts.append({"kind": "table", "head": head, "rows": cells})

    def pictures(self, drawn: Sequence[tuple[Path, str]], *, small: bool = False) -> None:
        """Add PNG files side by side, as many per row as fit, each with its alternative text."""
        pictures = [{"base64": base64.b64encode(path.read_bytes()).decode(), "text": text} for path, text in drawn]
        self._parts.append({"kind": "pictures", "pictures": pictures, "small": small})

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
        template = files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
        return environment.from_string(template).render(title=self._title, generator=GENERATOR, parts=self._parts)


def is_page(path: Path) -> bool:
    """Whether a file is a page of a report."""
    if not path.is_file():
        return False
    with storage_errors(path, "read"), path.open("rb") as file:
        return f'content="{GENERATOR}"'.encode() in file.read(1000)


@dataclass
class Section:
    """The part of a page about one block of rows, shared by the functions that fill it.

    Attributes:
        page: The page to add to.
        block: The rows to show.
        looks: Color and marker of each criterion.
        read_mask: Reads the (P,) bool mask of a row, True for kept weights; None if the file is gone.
        folder: Folder of the pictures.
        prefix: Prefix of their file names.
        level: Level of the headings.
        pictures: File names of the pictures drawn so far.
        missing: What the sweep lacks for the parts that were left out: ``seeds``, ``fit``, ``criteria``, ``masks``,
            ``iterations``, ``hessian`` or ``noise``.
    """

    page: Page
    block: Block
    looks: Mapping[str, Look]
    read_mask: Callable[[dict[str, Any]], npt.NDArray[np.bool_] | None]
    folder: Path
    prefix: str
    level: int
    pictures: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def show(self, heading: str, pictures: Sequence[tuple[Path, str]], note: str = "", *, small: bool = False) -> None:
        """Add a heading, pictures and, if there is one, a note about them."""
        self.page.heading(heading, self.level)
        self.page.pictures(pictures, small=small)
        if note:
            self.page.text(note, "note")

    def picture(self, name: str, draw: Callable[[Path], None], text: str) -> tuple[Path, str]:
        """Draw a picture to a file; returns its path and text, as :meth:`show` and :meth:`Page.pictures` take them."""
        path = self.folder / f"{self.prefix}{name}.png"
        draw(path)
        self.pictures.append(path.name)
        return path, text

    def pictures_at(
        self, most: int, name: str, draw: Callable[[float, Path], None], text: str
    ) -> list[tuple[Path, str]]:
        """Draw the same picture at up to ``most`` sparsities."""
        return [
            self.picture(f"{name}-{percent(s)}", partial(draw, s), f"{text} at {percent(s)} % pruned")
            for s in self.sampled(most)
        ]

    def sampled(self, most: int) -> list[float]:
        """At most ``most`` of the block's sparsities above 0 (if any is), evenly spaced, including the highest."""
        values = [s for s in self.block.sparsities if s > 0] or self.block.sparsities
        if len(values) <= most:
            return values
        return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
