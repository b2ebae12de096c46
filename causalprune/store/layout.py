"""Every file name in a trajectory store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from causalprune.errors import CorruptError
from causalprune.files import storage_errors

METADATA = "zarr.json"
"""What every Zarr v3 group and array is described by."""

_RECORDING_NAME = re.compile(r"\d{3,9}")
_REPLACED_NAME = re.compile(r"\.(\d{3,9})\.replaced")
_SHARD_NAME = re.compile(r"c\.(\d{1,12})\.0")


@dataclass(frozen=True)
class StoreLayout:
    """The files of a store: a Zarr group with one group of recordings."""

    root: Path

    @property
    def metadata(self) -> Path:
        """Format version, parameter index, model, starting checkpoint."""
        return self.root / METADATA

    @property
    def recordings(self) -> Path:
        """Group of the recordings."""
        return self.root / "recordings"

    @property
    def lock(self) -> Path:
        """Lock of the one process that records."""
        return self.root / ".lock"

    @property
    def fits_lock(self) -> Path:
        """Lock of whoever adds, replaces or deletes a fit."""
        return self.root / ".fits-lock"

    def require_contained(self) -> None:
        """Check that nothing below the root is a link or a special file, through which one could leave the store.

        Raises:
            CorruptError: Something is.
            StorageError: The file system refused.
        """
        with storage_errors(self.root, "read"):
            directories = [str(self.root)]
            while directories:
                with os.scandir(directories.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            directories.append(entry.path)
                        elif not entry.is_file(follow_symlinks=False) and (entry.is_symlink() or Path(entry).exists()):
                            found = "a link" if entry.is_symlink() else "a special file"
                            raise CorruptError(
                                entry.path,
                                expected="files and directories only, as causalprune writes them",
                                found=found,
                                remedy="don't use this store unless you know why it is there",
                            )

    def recording(self, name: str) -> RecordingLayout:
        """The files of one recording, also while it is being replaced."""
        path = self.recordings / name
        replaced = self.replaced_recording(name)
        return RecordingLayout(replaced if replaced.is_dir() and not path.is_dir() else path)

    def replaced_recording(self, name: str) -> Path:
        """Where a recording is while another encoding of it takes its place."""
        return self.recordings / f".{name}.replaced"

    def replaced_recordings(self) -> list[str]:
        """Names of the recordings that a crash left there."""
        matches = (_REPLACED_NAME.fullmatch(p.name) for p in self.recordings.iterdir())
        return sorted(m[1] for m in matches if m)

    def recording_names(self) -> tuple[str, ...]:
        """Names of the recordings that exist, in order."""
        if not self.recordings.is_dir():
            return ()
        names = {p.name for p in self.recordings.iterdir() if p.is_dir() and _RECORDING_NAME.fullmatch(p.name)}
        return tuple(sorted(names.union(self.replaced_recordings()), key=int))

    def next_recording_name(self) -> str:
        """The name behind the last one."""
        names = self.recording_names()
        return f"{int(names[-1]) + 1 if names else 0:03d}"


@dataclass(frozen=True)
class RecordingLayout:
    """The files of a recording: a Zarr group."""

    root: Path

    @property
    def metadata(self) -> Path:
        """What was recorded and how it is laid out."""
        return self.root / METADATA

    @property
    def delta(self) -> Path:
        """The sharded array of deltas."""
        return self.root / "delta"

    @property
    def delta_metadata(self) -> Path:
        """Shape and codecs of the deltas."""
        return self.delta / METADATA

    @property
    def commit_log(self) -> Path:
        """Which rows are recorded; inside an array's folder, because Zarr warns of foreign files in a group's."""
        return self.delta / "commits.log"

    @property
    def active(self) -> Path:
        """Array (P,) bool: which parameters the columns are."""
        return self.root / "active"

    @property
    def steps(self) -> Path:
        """Array (6, T): the scalars of each step, once the recording is finished."""
        return self.root / "steps"

    @property
    def fits(self) -> Path:
        """Group of the fits."""
        return self.root / "fits"

    def fit(self, name: str) -> Path:
        """Group of one fit."""
        return self.fits / name

    def replaced_fit(self, name: str) -> Path:
        """Where a fit is while another one takes its place."""
        return self.fits / f".{name}.replaced"

    def shard(self, number: int) -> Path:
        """The shard of rows ``number * block_rows`` and on."""
        return self.delta / shard_name(number)

    def shard_numbers(self) -> list[int]:
        """Numbers of the shard files that exist."""
        matches = (_SHARD_NAME.fullmatch(p.name) for p in self.delta.iterdir())
        return sorted(int(m[1]) for m in matches if m)


def shard_name(number: int) -> str:
    """Zarr's key of shard ``number`` under the default encoding with separator ``.``."""
    return f"c.{number}.0"
