"""Every file name in a trajectory store."""

from __future__ import annotations

import re
from dataclasses import dataclass

from causalprune.trajectory.collection import Collection
from causalprune.trajectory.storage.location import FITS_LOCK, LOCK, Location
from causalprune.trajectory.zarr_files import METADATA

_RECORDING_NAME = re.compile(r"\d{3,9}")
FIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SHARD_NAME = re.compile(r"c\.(\d{1,12})\.0")


@dataclass(frozen=True)
class StoreLayout:
    """The files of a store: a Zarr group that contains a group of recordings."""

    root: Location

    @property
    def metadata(self) -> Location:
        """Format version, parameter index, model, starting checkpoint."""
        return self.root / METADATA

    @property
    def recordings(self) -> Collection:
        """Group of the recordings."""
        return Collection(self.root / "recordings", _RECORDING_NAME)

    @property
    def lock(self) -> Location:
        """Lock of the one process that records."""
        return self.root / LOCK

    @property
    def fits_lock(self) -> Location:
        """Lock of the process that adds or replaces a fit."""
        return self.root / FITS_LOCK

    def recording(self, name: str) -> RecordingLayout:
        """The files of one recording, also while it is being replaced."""
        return RecordingLayout(self.recordings.find(name) or self.recordings.folder / name)


@dataclass(frozen=True)
class RecordingLayout:
    """The files of a recording: a Zarr group."""

    root: Location

    @property
    def metadata(self) -> Location:
        """What was recorded, and its shape and codec."""
        return self.root / METADATA

    @property
    def delta(self) -> Location:
        """The sharded array of deltas."""
        return self.root / "delta"

    @property
    def delta_metadata(self) -> Location:
        """Shape and codecs of the deltas."""
        return self.delta / METADATA

    @property
    def commit_log(self) -> Location:
        """Which rows are recorded. It is in an array's folder, because Zarr warns about foreign files in a group's."""
        return self.delta / "commits.log"

    @property
    def active(self) -> Location:
        """Array (P,) bool: which parameters have a column."""
        return self.root / "active"

    @property
    def steps(self) -> Location:
        """Array (6, T): the scalars of each step, once the recording is finished."""
        return self.root / "steps"

    @property
    def fits(self) -> Collection:
        """Group of the fits."""
        return Collection(self.root / "fits", FIT_NAME)

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
