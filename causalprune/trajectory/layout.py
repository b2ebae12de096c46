"""Every file name in a trajectory store."""

from __future__ import annotations

import re

from causalprune.trajectory.collection import Collection
from causalprune.trajectory.storage.location import FITS_LOCK, LOCK, Location
from causalprune.trajectory.zarr_files import METADATA

_RECORDING_NAME = re.compile(r"\d{3,9}")
FIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SHARD_NAME = re.compile(r"c\.(\d{1,12})\.0")


class StoreLayout:
    """The files of a store: a Zarr group that contains a group of recordings."""

    def __init__(self, root: Location) -> None:
        self.root = root
        self.metadata = root / METADATA
        """Format version, parameter index, model, starting checkpoint."""
        self.recordings = Collection(root / "recordings", _RECORDING_NAME)
        """Group of the recordings."""
        self.lock = root / LOCK
        """Lock of the one process that records."""
        self.fits_lock = root / FITS_LOCK
        """Lock of the process that adds or replaces a fit."""

    def recording(self, name: str) -> RecordingLayout:
        """The files of one recording, also while it is being replaced."""
        return RecordingLayout(self.recordings.find(name) or self.recordings.folder / name)


class RecordingLayout:
    """The files of a recording: a Zarr group."""

    def __init__(self, root: Location) -> None:
        self.root = root
        self.metadata = root / METADATA
        """What was recorded, and its shape and codec."""
        self.delta = root / "delta"
        """The sharded array of deltas."""
        self.delta_metadata = self.delta / METADATA
        """Shape and codecs of the deltas."""
        self.commit_log = self.delta / "commits.log"
        """Which rows are recorded. It is in an array's folder, because Zarr warns about foreign files in a group's."""
        self.active = root / "active"
        """Array (P,) bool: which parameters have a column."""
        self.steps = root / "steps"
        """Array (6, T): the scalars of each step, once the recording is finished."""
        self.fits = Collection(root / "fits", FIT_NAME)
        """Group of the fits."""

    def shard(self, number: int) -> Location:
        """The shard of rows ``number * block_rows`` and up."""
        return self.delta / shard_name(number)

    def shard_numbers(self) -> list[int]:
        """Numbers of the shard files that exist."""
        matches = (_SHARD_NAME.fullmatch(name) for name in self.delta.children())
        return sorted(int(m[1]) for m in matches if m)


def shard_name(number: int) -> str:
    """Zarr's key of shard ``number`` under the default encoding with separator ``.``."""
    return f"c.{number}.0"
