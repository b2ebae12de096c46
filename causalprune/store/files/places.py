"""From what a user names to where it is."""

from __future__ import annotations

from pathlib import Path

from causalprune.store.files.disk import DiskLocation
from causalprune.store.files.location import Location


def locate(place: Path | str) -> Location:
    """The location of a store.

    Args:
        place: A path.
    """
    return DiskLocation(Path(place))
