"""What a picture of a report shows, whoever draws it: :mod:`.draw` as a PNG file, :mod:`.interactive` for a browser.

A chart has numbers, names and colors, and no library. Names are those of users: whoever draws escapes them.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_LONG_COLUMNS = 6
"""Of more columns of cells, there is room for brief names only."""


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Attributes:
        label: What it measures.
        ticks: Places with their texts; whoever draws chooses if there are none.
        log: Whether it is logarithmic.
        low: Where it begins; None where the data do.
        high: Where it ends.
        grid: Whether lines show its ticks.
        small: Whether its numbers may be far below 1, and are written such as ``−2e-5``.
    """

    label: str
    ticks: tuple[tuple[float, str], ...] = ()
    log: bool = False
    low: float | None = None
    high: float | None = None
    grid: bool = False
    small: bool = False


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: Its name in the legend; empty for none.
        x: Places, ascending.
        y: A value at each.
        color: ``#RRGGBB``.
        marker: A marker of matplotlib; empty for none.
        dash: A line style of matplotlib; empty for markers alone.
        band: Half the height of a band around the line at each place; empty for none.
        dots: Single points that belong to it.
        said: What the pointer shows at each place; empty for the numbers.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    color: str
    marker: str = ""
    dash: str = "-"
    band: tuple[float, ...] = ()
    dots: tuple[tuple[float, float], ...] = ()
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis.

    Attributes:
        title: Its title; empty for none.
        x: The axis across.
        y: The axis up.
        curves: The lines.
        level: The value of the networks before pruning, a dashed line; None for none.
        above: A value that ``y`` is not to leave far below, whatever the data: a network much worse than that would
            flatten all others.
    """

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    level: float | None = None
    above: float | None = None


@dataclass(frozen=True)
class Bars:
    """One color of a histogram, stacked on those before it: a name, a color, and the height of each bar."""

    name: str
    color: str
    heights: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """Bars between edges.

    Attributes:
        title: Its title.
        x: The axis across.
        y: The axis of counts.
        left: Where each bar begins.
        width: The width of all.
        bars: From the bottom up.
    """

    title: str
    x: Axis
    y: Axis
    left: tuple[float, ...]
    width: float
    bars: tuple[Bars, ...]


@dataclass(frozen=True)
class HeatMap:
    """A table of colored cells.

    Attributes:
        title: Its title.
        across: What the columns are.
        columns: Names of C columns.
        rows: Names of R rows.
        shade: (R, C), how dark each cell is, in [0, 1].
        texts: (R, C), what each says.
        square: Whether the cells are squares, of a picture as large as they need.
        down: What the rows are, said where they are too many for their names.
        brief: Shorter names of the columns, where there is no room for the others.
    """

    title: str
    across: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    shade: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    square: bool = False
    down: str = ""
    brief: tuple[str, ...] = ()

    @property
    def named_columns(self) -> tuple[str, ...]:
        """The names of the columns where there is as much room as in a picture."""
        return self.brief if self.brief and len(self.columns) > MOST_LONG_COLUMNS else self.columns


@dataclass(frozen=True)
class Fall:
    """Where the score of one criterion falls.

    Attributes:
        name: The criterion.
        color: Its color.
        marker: Its marker.
        at: The place.
        deviation: One standard deviation of the place over the seeds; None for one seed.
        width: How far the fall extends, from nine tenths of the height to one tenth.
        said: What the pointer shows.
    """

    name: str
    color: str
    marker: str
    at: float
    deviation: float | None
    width: float
    said: str


@dataclass(frozen=True)
class FallChart:
    """Falls below each other over a common axis: the place, its uncertainty, and the width."""

    title: str
    x: Axis
    falls: tuple[Fall, ...]


Chart = LineChart | Histogram | HeatMap | FallChart
