"""An HTML page in one file: headings, text, tables and pictures, readable on a desk and on a phone, without scripts."""

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

from causalprune.analysis.report.series import Block
from causalprune.base.errors import storage_errors
from causalprune.base.units import percent

GENERATOR = "causalprune report"
"""The program that a page names as its generator."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table with more than text.

    Attributes:
        text: What it says.
        spread: A smaller addition, such as ``±0.3``.
        best: Whether it stands out.
    """

    text: str
    spread: str = ""
    best: bool = False


class Page:
    """Collects the parts of a page; the template escapes all text.

    Args:
        title: Of the window and of the page.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[dict[str, Any]] = []

    def heading(self, text: str, level: int = 2) -> None:
        """A heading of level 2 or 3."""
        self._parts.append({"kind": "heading", "text": text, "level": level})

    def text(self, text: str, style: str = "") -> None:
        """A paragraph; ``style`` is ``lead``, ``note`` or nothing."""
        self._parts.append({"kind": "text", "text": text, "style": style})

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> None:
        """A table that scrolls by itself where it is wider than the screen; the first column names the rows."""
        cells = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        self._parts.append({"kind": "table", "head": head, "rows": cells})

    def pictures(self, drawn: Sequence[tuple[Path, str]], *, small: bool = False) -> None:
        """PNG files, as many side by side as fit, each with the text that describes it."""
        pictures = [{"base64": base64.b64encode(path.read_bytes()).decode(), "text": text} for path, text in drawn]
        self._parts.append({"kind": "pictures", "pictures": pictures, "small": small})

    def html(self) -> str:
        """The page."""
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
    """Whether a file is one of these pages."""
    if not path.is_file():
        return False
    with storage_errors(path, "read"), path.open("rb") as file:
        return f'content="{GENERATOR}"'.encode() in file.read(1000)


@dataclass
class Section:
    """The part of a page about one block of rows: what its sections draw from and to.

    Attributes:
        page: Where they are added.
        block: The rows.
        colors: By criterion.
        read_mask: Reads the (P,) mask of a row, True for kept weights; None where it is gone.
        folder: Where pictures go.
        prefix: What their names begin with.
        level: Of the headings.
        pictures: Names of those that were drawn.
    """

    page: Page
    block: Block
    colors: Mapping[str, str]
    read_mask: Callable[[dict[str, Any]], npt.NDArray[np.bool_] | None]
    folder: Path
    prefix: str
    level: int
    pictures: list[str] = field(default_factory=list)

    def picture(self, name: str, draw: Callable[[Path], None], text: str) -> tuple[Path, str]:
        """Draw a picture; returns what :meth:`Page.pictures` takes."""
        path = self.folder / f"{self.prefix}{name}.png"
        draw(path)
        self.pictures.append(path.name)
        return path, text

    def pictures_at(
        self, most: int, name: str, draw: Callable[[float, Path], None], text: str
    ) -> list[tuple[Path, str]]:
        """The same picture at several sparsities."""
        return [
            self.picture(f"{name}-{percent(s)}", partial(draw, s), f"{text} at {percent(s)} % pruned")
            for s in self.sampled(most)
        ]

    def sampled(self, most: int) -> list[float]:
        """At most so many of the block's sparsities above 0 (if there are any), evenly spaced, including the last."""
        values = [s for s in self.block.sparsities if s > 0] or self.block.sparsities
        if len(values) <= most:
            return values
        return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
