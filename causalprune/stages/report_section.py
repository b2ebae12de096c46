"""What a section of a report draws from and to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from causalprune.evaluation.page import Page
from causalprune.evaluation.series import Block
from causalprune.paths import SweepPaths
from causalprune.quantities import percent


@dataclass
class Section:
    """What a section draws from and to.

    Attributes:
        page: To be continued.
        block: The rows.
        colours: By criterion.
        paths: The sweep's files, for the masks.
        folder: Where pictures go.
        prefix: Begins their names.
        level: Of the headings.
        pictures: Names of those that were drawn.
    """

    page: Page
    block: Block
    colours: Mapping[str, str]
    paths: SweepPaths
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
        """At most so many of the block's sparsities above 0 (if there are any), evenly spaced, the last among them."""
        values = [s for s in self.block.sparsities if s > 0] or self.block.sparsities
        if len(values) <= most:
            return values
        return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
