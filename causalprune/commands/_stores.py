"""The trajectory store that a command reads."""

from __future__ import annotations

from pathlib import Path

from causalprune.base.paths import StoreUrl
from causalprune.trajectory import Store

RECORD = "run record first"
"""What to do where there is no store: a user of commands has no Recorder."""


def open_store(place: Path | StoreUrl) -> Store:
    """Open a store.

    Raises:
        CausalpruneError: See :meth:`causalprune.trajectory.Store.open`.
    """
    return Store.open(place, remedy=RECORD)
