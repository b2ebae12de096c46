"""Where a store's files are, and the few file operations that the rest of the store is built on."""

from __future__ import annotations

from pathlib import Path

from causalprune.base.paths import StoreUrl, parse_place
from causalprune.trajectory.storage.disk import DiskLocation
from causalprune.trajectory.storage.location import Location


def locate(place: Path | StoreUrl | str) -> Location:
    """The location of a store.

    Args:
        place: A path, or an address in object storage; either may be a string.

    Raises:
        UsageError: The address is invalid, or the package that it needs isn't installed.
    """
    if isinstance(place, str):
        place = parse_place(place)
    if isinstance(place, StoreUrl):
        from causalprune.trajectory.storage.object_client import client_of
        from causalprune.trajectory.storage.objects import ObjectLocation

        return ObjectLocation(client_of(place.bucket), place.key)
    return DiskLocation(Path(place))
