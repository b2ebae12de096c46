"""A group of recordings or of fits, whose members are replaced as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from causalprune.trajectory.storage.location import Location
from causalprune.trajectory.zarr_files import METADATA, read_document

_REPLACED = re.compile(r"\.(.+)\.replaced")


@dataclass(frozen=True)
class Collection:
    """A Zarr group whose members appear, change and disappear as a whole.

    While a member is replaced, the old one is called ``.NAME.replaced`` for a moment. Readers find it there then, and
    after a crash at that moment.

    Attributes:
        folder: The group.
        pattern: The names that members can have.
    """

    folder: Location
    pattern: re.Pattern[str]

    def make(self) -> None:
        """Make the empty group, inside a folder that is being built."""
        self.folder.make_folder()
        (self.folder / METADATA).write_json({"zarr_format": 3, "node_type": "group", "attributes": {}})

    def require(self) -> None:
        """Check the group's metadata.

        Raises:
            CorruptError: They are missing or damaged.
        """
        read_document(self.folder / METADATA, "group")

    def names(self) -> list[str]:
        """Names of the members that exist, sorted."""
        if not self.folder.is_folder():
            return []
        children = {child: self._replaced(child) or child for child in self.folder.children()}
        found = {n for child, n in children.items() if self.pattern.fullmatch(n) and (self.folder / child).is_folder()}
        return sorted(found)

    def find(self, name: str) -> Location | None:
        """The complete member of this name, also while it is being replaced; None if there is none."""
        if not self.pattern.fullmatch(name):
            return None
        places = (self.folder / name, self._aside(name))
        return next((place for place in places if place.is_folder()), None)

    def replace(self, name: str, fill: Callable[[Location], None]) -> None:
        """Build a member in place of an existing one, if any; see :meth:`Location.replace`."""
        (self.folder / name).replace(self._aside(name), fill)

    def recover(self) -> None:
        """Finish or undo a replacement that a crash cut short, and remove what else it left; only for a writer."""
        self.folder.clear_leftovers()
        for child in sorted(self.folder.children()):
            name = self._replaced(child)
            if name is not None:
                target = self.folder / name
                if target.exists():
                    (self.folder / child).remove_folder()
                else:
                    (self.folder / child).move(target)

    def _aside(self, name: str) -> Location:
        return self.folder / f".{name}.replaced"

    def _replaced(self, child: str) -> str | None:
        """The name of the member that ``child`` is the old one of, if any."""
        match = _REPLACED.fullmatch(child)
        return match[1] if match and self.pattern.fullmatch(match[1]) else None
