"""Every file name in a trajectory store, and its groups of recordings and of fits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from causalprune.trajectory.storage.location import FITS_LOCK, LOCK, Location
from causalprune.trajectory.zarr_files import METADATA, read_document

_RECORDING_NAME = re.compile(r"\d{3,9}")
FIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SHARD_NAME = re.compile(r"c\.(\d{1,12})\.0")
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
        self.candidates = root / "candidates"
        """Array (P,) bool: of which parameters the active ones are a sample, if they are."""
        self.steps = root / "steps"
        """Array (6 or more, T): the scalars of each step, once the recording is finished."""
        self.fits = Collection(root / "fits", FIT_NAME)
        """Group of the fits."""
        self.layer_statistics = root / "layer_statistics"
        """Group of the layers' statistics at the weights that the recording ended with, if it has them."""

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
