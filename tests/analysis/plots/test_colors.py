"""Each criterion is told apart, on white as on black pages, by a look that nothing but its name decides."""

import pytest

from causalprune.analysis.plots.colors import LOOKS, ink_on, look_of, looks_of
from causalprune.pruning.names import CRITERIA

PAGES = ("#FFFFFF", "#16181D")
PLUG_INS = ("taylor", "mine", "snip", "grasp", "a/b c", "γ", "<script>", "movement")


def contrast(first, second):
    """WCAG 2, with its own table-free definition of the luminance of 8-bit colors."""
    luminances = []
    for color in (first, second):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        luminances.append(sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05)
    return max(luminances) / min(luminances)


def test_every_criterion_has_its_own_color_and_marker():
    assert set(LOOKS) == set(CRITERIA)
    assert len({look.color for look in LOOKS.values()}) == len({look.marker for look in LOOKS.values()}) == len(LOOKS)


@pytest.mark.parametrize("name", [*CRITERIA, *PLUG_INS])
@pytest.mark.parametrize("page", PAGES)
def test_colors_can_be_seen(name, page):
    assert contrast(look_of(name).color, page) >= 3


def test_the_company_doesnt_change_a_look():
    alone = {name: look_of(name) for name in PLUG_INS}
    assert looks_of([*reversed(PLUG_INS), "effect"]) == alone | {"effect": LOOKS["effect"]}
    assert look_of("taylor").color == "#2B7FAB"


def test_numbers_on_cells_can_be_read():
    """On the colors that matplotlib gives the cells."""
    matplotlib = pytest.importorskip("matplotlib")
    for step in range(101):
        cell = matplotlib.colors.to_hex(matplotlib.colormaps["Blues"](step / 100))
        assert contrast(ink_on(step / 100), cell) > 4
    assert (ink_on(0), ink_on(1)) == ("#111111", "#FFFFFF")
