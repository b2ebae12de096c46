"""The trajectory store that a command reads."""

from __future__ import annotations

from pathlib import Path

from causalprune.base.paths import StoreUrl
from causalprune.trajectory import Store


def open_store(place: Path | StoreUrl) -> Store:
    """Open a store; where there is none, a user of commands is told to record by one.

    Raises:
        CausalpruneError: See :meth:`causalprune.trajectory.Store.open`.
    """
    return Store.open(place, remedy="run record first")
