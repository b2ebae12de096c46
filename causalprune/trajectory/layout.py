"""Every file name in a trajectory store."""

from __future__ import annotations

import re
from dataclasses import dataclass

from causalprune.trajectory.storage import FITS_LOCK, LOCK, Location

METADATA = "zarr.json"
"""What every Zarr v3 group and array is described by."""

_RECORDING_NAME = re.compile(r"\d{3,9}")
_REPLACED_NAME = re.compile(r"\.(\d{3,9})\.replaced")
_SHARD_NAME = re.compile(r"c\.(\d{1,12})\.0")


@dataclass(frozen=True)
class StoreLayout:
    """The files of a store: a Zarr group with one group of recordings."""

    root: Location

    @property
    def metadata(self) -> Location:
        """Format version, parameter index, model, starting checkpoint."""
        return self.root / METADATA

    @property
    def recordings(self) -> Location:
        """Group of the recordings."""
        return self.root / "recordings"

    @property
    def lock(self) -> Location:
        """Lock of the one process that records."""
        return self.root / LOCK

    @property
    def fits_lock(self) -> Location:
        """Lock of whoever adds, replaces or deletes a fit."""
        return self.root / FITS_LOCK

    def recording(self, name: str) -> RecordingLayout:
        """The files of one recording, also while it is being replaced."""
        folder = self.recordings / name
        replaced = self.replaced_recording(name)
        return RecordingLayout(replaced if not folder.is_folder() and replaced.is_folder() else folder)

    def replaced_recording(self, name: str) -> Location:
        """Where a recording is while another encoding of it takes its place."""
        return self.recordings / f".{name}.replaced"

    def replaced_recordings(self) -> list[str]:
        """Names of the recordings that a crash left there."""
        matches = (_REPLACED_NAME.fullmatch(name) for name in self.recordings.children())
        return sorted(m[1] for m in matches if m)

    def recording_names(self) -> tuple[str, ...]:
        """Names of the recordings that exist, in order."""
        if not self.recordings.is_folder():
            return ()
        found = set()
        for child in self.recordings.children():
            replaced = _REPLACED_NAME.fullmatch(child)
            if (replaced or _RECORDING_NAME.fullmatch(child)) and (self.recordings / child).is_folder():
                found.add(replaced[1] if replaced else child)
        return tuple(sorted(found, key=int))

    def next_recording_name(self) -> str:
        """The name behind the last one."""
        names = self.recording_names()
        return f"{int(names[-1]) + 1 if names else 0:03d}"


@dataclass(frozen=True)
class RecordingLayout:
    """The files of a recording: a Zarr group."""

    root: Location

    @property
    def metadata(self) -> Location:
        """What was recorded and how it is laid out."""
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
        """Which rows are recorded; inside an array's folder, because Zarr warns of foreign files in a group's."""
        return self.delta / "commits.log"

    @property
    def active(self) -> Location:
        """Array (P,) bool: which parameters the columns are."""
        return self.root / "active"

    @property
    def steps(self) -> Location:
        """Array (6, T): the scalars of each step, once the recording is finished."""
        return self.root / "steps"

    @property
    def fits(self) -> Location:
        """Group of the fits."""
        return self.root / "fits"

    def fit(self, name: str) -> Location:
        """Group of one fit."""
        return self.fits / name

    def replaced_fit(self, name: str) -> Location:
        """Where a fit is while another one takes its place."""
        return self.fits / f".{name}.replaced"

    def shard(self, number: int) -> Location:
        """The shard of rows ``number * block_rows`` and on."""
        return self.delta / shard_name(number)

    def shard_numbers(self) -> list[int]:
        """Numbers of the shard files that exist."""
        matches = (_SHARD_NAME.fullmatch(name) for name in self.delta.children())
        return sorted(int(m[1]) for m in matches if m)


def shard_name(number: int) -> str:
    """Zarr's key of shard ``number`` under the default encoding with separator ``.``."""
    return f"c.{number}.0"
