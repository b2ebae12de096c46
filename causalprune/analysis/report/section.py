"""The part of a page about one block of rows, shared by the functions that fill it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.plots.chart import Chart
from causalprune.analysis.plots.colors import Look
from causalprune.analysis.plots.draw import draw
from causalprune.analysis.plots.figures import DARK
from causalprune.analysis.plots.interactive import figure_of
from causalprune.analysis.report.page import Cell, Page, Picture
from causalprune.analysis.report.series import Block
from causalprune.base.units import percent


@dataclass
class Pictures:
    """Draws the pictures of a part of a page.

    Attributes:
        folder: Where they go.
        prefix: Prefix of their file names.
    """

    folder: Path
    prefix: str = ""

    def of(self, name: str, chart: Chart, text: str, *, dark: bool = False) -> Picture:
        """Draw a chart as PNG.

        Args:
            name: Name of the file, without its ending.
            chart: What to draw.
            text: What it shows, in words.
            dark: Whether to write another file, ``NAME-dark.png``, for dark pages.
        """
        path = self.folder / f"{self.prefix}{name}.png"
        draw(chart, path)
        if dark:
            night = path.with_name(f"{self.prefix}{name}-dark.png")
            draw(chart, night, DARK)
        return Picture(path, text, figure_of(chart), night if dark else None)


@dataclass
class Section:
    """The part of a page about one block.

    Attributes:
        page: The page to add to.
        block: The rows to show.
        looks: Color and marker of each criterion.
        read_mask: Reads the (P,) bool mask of a row, True for kept weights; None if the file is gone.
        pictures: Draws its pictures.
        level: Level of the headings.
        missing: What the sweep lacks for the parts that were left out: ``seeds``, ``phase-shift``, ``fit``,
            ``criteria``, ``masks``, ``iterations``, ``hessian`` or ``noise``.
    """

    page: Page
    block: Block
    looks: Mapping[str, Look]
    read_mask: Callable[[dict[str, Any]], npt.NDArray[np.bool_] | None]
    pictures: Pictures
    level: int
    missing: list[str] = field(default_factory=list)

    @property
    def seeds(self) -> bool:
        """Whether something is a mean over several seeds."""
        return any(len(series.seeds) > 1 for series in self.block.series)

    def show(self, heading: str, pictures: Sequence[Picture], note: str = "", *, small: bool = False) -> None:
        """Add a heading, pictures and, if there is one, a note about them."""
        self.page.heading(heading, self.level)
        self.page.pictures(pictures, small=small)
        if note:
            self.page.text(note, "note")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | Cell]], name: str) -> None:
        """Add a table, which is also in the file ``NAME.csv``."""
        self.page.table(head, rows, f"{self.pictures.prefix}{name}.csv")

    def pictures_at(self, most: int, name: str, chart: Callable[[float], Chart], text: str) -> list[Picture]:
        """Draw the same chart at up to ``most`` sparsities."""
        return [
            self.pictures.of(f"{name}-{percent(s)}", chart(s), f"{text} at {percent(s)} % pruned")
            for s in self.sampled(most)
        ]

    def sampled(self, most: int) -> list[float]:
        """At most ``most`` of the block's sparsities above 0 (if any is), evenly spaced, including the highest."""
        values = [s for s in self.block.sparsities if s > 0] or self.block.sparsities
        if len(values) <= most:
            return values
        return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
