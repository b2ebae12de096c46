"""Rooms of the package and the arrows between them, counted from what its files import.

    python tests/architecture/rooms.py [CHECKOUT] [-v]

A room is a folder or a module right below ``causalprune``, or the command line. An arrow says that a file of one room
imports something of another, within functions too, or names it in a registry: a string ``module:object`` is imported
when it is first used, so it counts like an import. ``causalprune`` itself is no room: it only exports.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"causalprune": "causalprune", "causalprune_cli": "cli"}
"""Folder of each importable package."""
TOP = "(top)"
REFERENCE = re.compile(r"causalprune(?:_cli)?(?:\.\w+)*:\w+")
"""What a registry holds: ``module:object``."""

MOST_ROOMS, MOST_ARROWS, MOST_LOOSE, MOST_FILES = 13, 45, 3, 20


@dataclass(frozen=True)
class House:
    """What was counted.

    Attributes:
        rooms: Names of the rooms that have an arrow.
        arrows: Pairs of a room and one that it imports.
        circles: Rooms from which arrows lead back to them.
        loose: Modules right below ``causalprune``, without those that Python itself asks for.
        lines: Lines of each file, by its path relative to the checkout.
    """

    rooms: tuple[str, ...]
    arrows: frozenset[tuple[str, str]]
    circles: tuple[str, ...]
    loose: tuple[str, ...]
    lines: dict[Path, int]

    @property
    def folders(self) -> dict[Path, int]:
        """Number of files of each folder."""
        parents = [path.parent for path in self.lines]
        return {folder: parents.count(folder) for folder in sorted(set(parents))}

    @property
    def largest_folder(self) -> int:
        return max(self.folders.values())

    @property
    def median_lines(self) -> int:
        return statistics.median_high(self.lines.values())

    def summary(self) -> str:
        """All of it in a line."""
        return (
            f"rooms {len(self.rooms)}, arrows {len(self.arrows)}, rooms in a circle {len(self.circles)} "
            f"{list(self.circles)}, loose modules {len(self.loose)}, largest folder {self.largest_folder} files, "
            f"files {len(self.lines)}, median {self.median_lines} lines, total {sum(self.lines.values())}"
        )

    def is_tidy(self) -> bool:
        """Whether it keeps the bounds that ``docs/architecture.md`` gives."""
        few = len(self.rooms) <= MOST_ROOMS and len(self.arrows) <= MOST_ARROWS and len(self.loose) <= MOST_LOOSE
        return few and not self.circles and self.largest_folder <= MOST_FILES


def survey(checkout: Path) -> House:
    """Count the rooms of a checkout."""
    arrows, lines = set(), {}
    for package, folder in PACKAGES.items():
        for path in sorted((checkout / folder).rglob("*.py")):
            text = path.read_text()
            lines[path.relative_to(checkout)] = len(text.splitlines())
            inside = path.relative_to(checkout / folder).with_suffix("").parts
            here = _room(".".join((package, *(part for part in inside if part != "__init__"))))
            there = {_room(module) for module in imported(text)}
            arrows |= {(here, room) for room in there if TOP not in (here, room) and room != here}
    top = checkout / PACKAGES["causalprune"]
    return House(
        rooms=tuple(sorted({room for arrow in arrows for room in arrow})),
        arrows=frozenset(arrows),
        circles=tuple(sorted(room for room in {a for a, _ in arrows} if room in _reached(room, arrows))),
        loose=tuple(sorted(p.stem for p in top.glob("*.py") if p.stem not in ("__init__", "__main__"))),
        lines=lines,
    )


def imported(text: str) -> Iterator[str]:
    """Our modules that the source of a file imports, or names as ``module:object``."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # From the package itself, the names may be rooms.
            whole = node.module in PACKAGES
            names = [f"{node.module}.{alias.name}" for alias in node.names] if whole else [node.module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and REFERENCE.fullmatch(node.value):
            names = [node.value.partition(":")[0]]
        yield from (name for name in names if name.partition(".")[0] in PACKAGES)


def _room(module: str) -> str:
    package, _, rest = module.partition(".")
    return "cli" if package == "causalprune_cli" else rest.partition(".")[0] or TOP


def _reached(room: str, arrows: set[tuple[str, str]]) -> set[str]:
    """Rooms to which arrows lead from a room, over others too."""
    reached: set[str] = set()
    new = {there for here, there in arrows if here == room}
    while new:
        reached |= new
        new = {there for here, there in arrows if here in reached} - reached
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("-v", "--verbose", action="store_true", help="list the arrows of each room")
    options = parser.parse_args()
    house = survey(options.checkout)
    print(house.summary())
    for room in house.rooms if options.verbose else ():
        print(f"{room} → {', '.join(sorted(there for here, there in house.arrows if here == room)) or 'nothing'}")
    return 0 if house.is_tidy() else 1


if __name__ == "__main__":
    sys.exit(main())
