"""What all pictures share: a plain style on a light or a dark page, PNG files."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.base.errors import UsageError, missing_extra
from causalprune.base.files import write_atomic
from causalprune.base.options import png_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Theme:
    """Colors of a picture besides those of what it shows: of the page, of texts, and of lines behind."""

    page: str
    ink: str
    grid: str


LIGHT, DARK = Theme("#FFFFFF", INK, "#EEEEEE"), Theme("#16181D", "#D8D8D8", "#2C2F36")


def require_matplotlib() -> None:
    """Check that matplotlib can be imported; called before the work whose result will be drawn.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise missing_extra("plots need matplotlib", "plots") from error


def figure(width: float, height: float, theme: Theme = LIGHT) -> Figure:
    """A figure with this size in inches; it needs no display and doesn't touch pyplot's global state.

    Raises:
        UsageError: matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor=theme.page)
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes, theme: Theme = LIGHT) -> None:
    """Make axes plain: no box, gray ticks."""
    axes.set_facecolor(theme.page)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=theme.ink, labelsize=9)


def plain_logarithm(axes: Axes) -> None:
    """Make the y axis logarithmic, with ticks such as 0.2, 0.5, 1."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # Over many decades there is room for powers of ten only.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def patch(color: str, label: str) -> Any:
    """A colored square for a legend."""
    from matplotlib.patches import Patch

    return Patch(color=color, label=label)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, atomically.

    Raises:
        UsageError: ``path`` doesn't end in ``.png``.
        StorageError: The file system refused.
    """
    expected = png_file(path)
    if expected:
        raise UsageError("plot", expected=expected, found=path.name)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes, which isn't worth a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        # Without matplotlib's version in the file, equal pictures have equal bytes.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def label(name: str, limit: int) -> str:
    """A user's name on one line, shortened to its end if it is long, with ``$`` escaped."""
    line = " ".join(name.split())
    return (line if len(line) <= limit else "…" + line[1 - limit :]).replace("$", r"\$")


def count(number: float) -> str:
    """A number with a unit prefix, such as 1.5 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            value = number / size
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
    return f"{number:.0f}"
