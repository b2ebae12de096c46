"""The color and the marker of each criterion: the same in every picture, page and document.

On a dark page a browser's charts have the colors a little brighter.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

BLUE, ORANGE, GRAY = "#0072B2", "#E69F00", "#B4B4B4"
"""Colors of pictures that compare no criteria; gray is the network before pruning."""


@dataclass(frozen=True)
class Look:
    """How a criterion is drawn.

    Attributes:
        color: ``#RRGGBB``; its contrast is at least 3 to 1 against a white page as against a dark one.
        marker: A marker of matplotlib, because no thirteen colors differ for everybody.
    """

    color: str
    marker: str


LOOKS = {
    "effect": Look(BLUE, "o"),
    "magnitude": Look("#D55E00", "s"),
    "gamma": Look("#009E73", "D"),
    "random": Look("#8A7350", "X"),
    "obs": Look("#C2338F", "^"),
    "chita": Look("#C97BA6", "v"),
    "fisher": Look("#8A5CB0", "P"),
    "obd": Look("#8583EE", "<"),
    "surgeon": Look("#6A9A1F", "*"),
    "rank-sum": Look("#A98500", "p"),
    "wanda": Look("#D62F4B", ">"),
    "lamp": Look("#2B9DB8", "h"),
    "curvature": Look("#2E7D32", "d"),
}
"""The built-in criteria."""

DASHES = ("-", "--", ":", "-.")
"""Lines of the first, second, … setting where several are in one picture."""

_MARKERS = "".join(look.marker for look in LOOKS.values())


def look_of(criterion: str) -> Look:
    """The look of a criterion. One that a plug-in adds has a look that only its name decides."""
    if criterion in LOOKS:
        return LOOKS[criterion]
    digest = hashlib.sha256(criterion.encode()).digest()
    hue = int.from_bytes(digest[:2]) / 65536
    # Green looks brighter than blue of the same lightness; this brightness is legible on white and on black.
    red, green, blue = next(
        rgb for rgb in (colorsys.hls_to_rgb(hue, step / 100, 0.6) for step in range(25, 90)) if luminance(rgb) >= 0.18
    )
    color = "#" + "".join(f"{round(255 * part):02X}" for part in (red, green, blue))
    return Look(color, _MARKERS[digest[2] % len(_MARKERS)])


def looks_of(criteria: Iterable[str]) -> dict[str, Look]:
    """The look of each criterion, in their order."""
    return {name: look_of(name) for name in criteria}


BLUES = ("#F7FBFF", "#C6DBEF", "#6BAED6", "#2171B5", "#08306B")
"""ColorBrewer's Blues as matplotlib has them, evenly spaced: the shades of a cell from 0 to 1."""

_WHITE, _BLACK = "#FFFFFF", "#111111"


def ink_on(shade: float) -> str:
    """The color of a text on a cell of this shade in [0, 1]: white or black, whichever has more contrast."""
    place = shade * (len(BLUES) - 1)
    at = min(int(place), len(BLUES) - 2)
    low, high = (_parts(color) for color in BLUES[at : at + 2])
    red, green, blue = (a + (place - at) * (b - a) for a, b in zip(low, high, strict=True))
    behind = luminance((red, green, blue)) + 0.05
    return _WHITE if 1.05 / behind > behind / (luminance(_parts(_BLACK)) + 0.05) else _BLACK


def _parts(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def luminance(rgb: tuple[float, float, float]) -> float:
    """Relative luminance of a color with parts in [0, 1], as WCAG 2 defines it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
