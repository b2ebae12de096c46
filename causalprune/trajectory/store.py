"""The trajectory store: recordings of what gradient descent did to the parameters, and of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from causalprune.base.errors import DAMAGE, CorruptError, DataError, MismatchError, UsageError
from causalprune.base.locks import Lock, LockHolder
from causalprune.base.paths import StoreUrl, meant_path, parse_place, store_of_iteration
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.array_groups import FitStore
from causalprune.trajectory.columns.parts import Partners, own_columns
from causalprune.trajectory.columns.sample import drawn_columns
from causalprune.trajectory.layout import StoreLayout
from causalprune.trajectory.lifecycle import begin_recording, rewind_recording
from causalprune.trajectory.reader import RecordingReader
from causalprune.trajectory.schema import EXPECTED_ROWS, RecordingInfo, RecordingSchema
from causalprune.trajectory.storage import locate
from causalprune.trajectory.storage.location import Location
from causalprune.trajectory.writer import QUEUE_BYTES, RecordingWriter
from causalprune.trajectory.zarr_files import group_document, read_attributes

if TYPE_CHECKING:
    import zarr


class Store:
    """A Zarr v3 hierarchy of recordings over one parameter index; one process at a time records into it.

    Attributes:
        path: The directory, or its address in object storage.
        index: The prunable parameters.
        model: Specification of the model, JSON-ready.
        start_sha256: Hash of the checkpoint for which the store was made.
        layout: Its files.
    """

    def __init__(
        self, path: Path | StoreUrl | str, index: ParameterIndex, model: dict[str, Any], start_sha256: str
    ) -> None:
        self.path = parse_place(path) if isinstance(path, str) else path
        self.index = index
        self.model = model
        self.start_sha256 = start_sha256
        self.layout = StoreLayout(locate(path))

    @classmethod
    def create(
        cls,
        path: Path | StoreUrl | str,
        *,
        index: ParameterIndex,
        model: dict[str, Any],
        start_sha256: str,
        break_lock: bool = False,
    ) -> Self:
        """Make an empty store; it appears as a whole.

        Args:
            path: A directory that doesn't exist yet, in one that does, or an address in object storage.
            index: The prunable parameters.
            model: Specification of the model, JSON-ready.
            start_sha256: Hash of the checkpoint from which recordings start.
            break_lock: In object storage, take the lock even from a process on another host, if it is known to have
                ended.

        Raises:
            UsageError: The path exists.
            LockedError: In object storage, another process is writing there.
            StorageError: Storage refused.
        """
        location = locate(path)
        content = {"index": index.to_json(), "model": model, "start_sha256": start_sha256}

        def fill(root: Location) -> None:
            new = StoreLayout(root)
            new.recordings.make()
            new.metadata.write_json(group_document("store", content))

        with location.making(break_lock=break_lock):
            if location.exists():
                remedy = "choose another path"
                raise UsageError(f"{path}", expected="nothing there yet", found="something", remedy=remedy)
            location.build(fill)
        return cls(path, index, model, start_sha256)

    @classmethod
    def open(cls, path: Path | StoreUrl | str, *, remedy: str = "record a loop with causalprune.Recorder") -> Self:
        """Open a store.

        Args:
            path: Where it is.
            remedy: How one is made, for the message where there is none.

        Raises:
            DataError: There is no directory.
            CorruptError: Not a store, damaged, or of a newer format.
            StorageError: Storage refused.
        """
        layout = StoreLayout(locate(path))
        if not layout.root.is_folder():
            raise DataError(
                f"{path}",
                expected="a trajectory store",
                found="a file" if layout.root.exists() else "nothing",
                remedy=_store_beside(path) or f"{remedy}, or give the path of a store",
            )
        layout.root.require_contained()
        content = read_attributes(layout.metadata, "store")
        source = f"{layout.metadata}"
        index = ParameterIndex.from_json(content.get("index"), source)
        model, start = content.get("model"), content.get("start_sha256")
        if not isinstance(model, dict) or not isinstance(start, str) or not index.total:
            raise CorruptError(source, expected="parameters, a model and a checkpoint's hash", found="not all of them")
        layout.recordings.require()
        return cls(path, index, model, start)

    @staticmethod
    def delete(path: Path | StoreUrl | str, *, break_lock: bool = False) -> None:
        """Delete a store, whether whole or damaged.

        Raises:
            DataError: The path is something else, and isn't touched.
            LockedError: Another process is recording into the store.
            StorageError: Storage refused.
        """
        layout = StoreLayout(locate(path).resolve())
        if not layout.metadata.is_file():
            raise DataError(
                f"{path}",
                expected="a trajectory store to replace",
                found="something else",
                remedy="remove it yourself, or choose another path",
            )
        with layout.lock.lock(break_lock=break_lock):
            layout.root.remove_folder()

    def zarr(self) -> zarr.Group:
        """The store as a group of the zarr library, for tools that read Zarr; opened read-only.

        ``group["recordings/000/delta"]`` is the (T, P_active) array of a recording. While that is being recorded, rows
        that aren't committed yet read as NaN; use :meth:`recording` to find out how many are.

        Raises:
            UsageError: A required library is missing.
        """
        import zarr

        return zarr.open_group(self.layout.root.zarr_store(), mode="r")

    def require_index(self, index: ParameterIndex) -> None:
        """Check that the store has the same parameters.

        Raises:
            MismatchError: Other names, shapes or order.
        """
        if index.fingerprint != self.index.fingerprint:
            raise MismatchError(
                f"{self.path}",
                expected=f"the {index.total} prunable parameters of this model",
                found=f"{self.index.total} others" if index.total != self.index.total else "others",
                remedy="use the model that was recorded",
            )

    @property
    def recordings(self) -> tuple[str, ...]:
        """Names of the recordings, ``"000"`` and up, in order."""
        return tuple(sorted(self.layout.recordings.names(), key=int))

    @property
    def writer(self) -> LockHolder | None:
        """The process that is recording into the store, if any; one on another host may have ended unnoticed."""
        holder = self.layout.lock.holder()
        return None if holder is None or holder.is_known_dead else holder

    def recording(self, name: str | None = None, *, quick: bool = False) -> RecordingReader:
        """Open a recording for reading.

        Args:
            name: Its name; by default the last one.
            quick: See :class:`RecordingReader`.

        Raises:
            DataError: There is none of that name, or none at all.
            CorruptError: A file is missing, damaged, or contradicts another.
        """
        name = self._require_name(name)
        return RecordingReader(self.layout.recording(name), name, self.index, quick=quick)

    def fits(self, recording: str | None = None) -> FitStore:
        """The fits of a recording, by default of the last one; use this to write a fit.

        Raises:
            DataError: There is no such recording.
        """
        return FitStore(self.layout.recording(self._require_name(recording)), self.layout.fits_lock)

    def _require_name(self, name: str | None) -> str:
        names = self.recordings
        if name is None and names:
            return names[-1]
        if name not in names:
            raise DataError(
                f"{self.path}",
                expected="a recording" if name is None else f"recording {name!r}",
                found=", ".join(names) or "no recording",
                remedy="record first" if not names else "name one of these",
            )
        return name

    def create_recording(
        self,
        info: RecordingInfo,
        active: np.ndarray,
        *,
        max_rows: int = EXPECTED_ROWS,
        codec: str = "balanced",
        block_rows: int | None = None,
        queue_bytes: int = QUEUE_BYTES,
        threads: int | None = None,
        break_lock: bool = False,
        partners: Partners | None = None,
    ) -> RecordingWriter:
        """Begin a recording after the last one.

        Args:
            info: How it is made.
            active: (P,) bool, the parameters to record: those that aren't pruned. Where ``info`` has a sample, that of
                them is drawn.
            max_rows: How many rows are expected, which sizes the blocks in memory. More are recorded all the same.
            codec: A name of :data:`~causalprune.trajectory.names.CODECS`.
            block_rows: Rows per shard; by default :meth:`BlockShape.choose` decides.
            queue_bytes: Memory for rows that aren't stored yet; at least two blocks are used.
            threads: Threads that compress; None for as many as the machine spares (:class:`RecordingWriter`).
            break_lock: As in :meth:`create`.
            partners: The processes that write it together, of which this is the first; the others
                :meth:`join_recording` then.

        Raises:
            DataError: No active parameter.
            MismatchError: ``active`` has another length.
            LockedError: Another process is recording into the store.
            StorageError: Storage refused.
            UsageError: An unknown codec, or a size out of range.
        """
        active = np.ascontiguousarray(active, dtype=bool)
        if active.shape != (self.index.total,):
            expected = f"a mask of {self.index.total} parameters"
            raise MismatchError(f"{self.path}", expected=expected, found=f"{active.shape}")
        candidates = None if info.sample is None else active
        active = drawn_columns(info.sample, self.index, active)
        schema = RecordingSchema.choose(info, active, max_rows, codec, block_rows, f"{self.path}", candidates)
        require_disk(self.path, partners)
        with self._locked_for_writer(break_lock) as lock:
            names = self.recordings
            name = f"{int(names[-1]) + 1 if names else 0:03d}"
            layout = self.layout.recording(name)
            begin_recording(layout, schema, active, candidates)
            reader = RecordingReader(layout, name, self.index)
            log = reader.read_log()
            log.claim()
            options: dict[str, Any] = {"queue_bytes": queue_bytes, "threads": threads, "partners": partners}
            return RecordingWriter(reader, log, lock=lock, **options)

    def resume_recording(
        self,
        name: str,
        *,
        rows: int,
        queue_bytes: int = QUEUE_BYTES,
        threads: int | None = None,
        break_lock: bool = False,
        partners: Partners | None = None,
    ) -> RecordingWriter:
        """Continue a recording after its first ``rows`` rows, dropping later rows and leftovers of a crash.

        Args:
            name: The recording.
            rows: Rows to keep: as many as the model's checkpoint has seen.
            queue_bytes: Memory for rows that aren't stored yet; at least two blocks are used.
            threads: As in :meth:`create_recording`.
            break_lock: As in :meth:`create`.
            partners: As in :meth:`create_recording`; however many wrote it before.

        Raises:
            DataError: There is no such recording.
            MismatchError: Fewer rows than that were committed.
            CorruptError: A file is missing or damaged.
            LockedError: Another process is recording into the store.
            StorageError: Storage refused.
        """
        require_disk(self.path, partners)
        with self._locked_for_writer(break_lock) as lock:
            layout = self.layout.recording(self._require_name(name))
            for folder in (layout.root, layout.delta):
                folder.clear_leftovers()
            log = RecordingReader(layout, name, self.index).read_log()
            log.claim()
            # What is read from here on can't be changed by a writer that this one has taken over from.
            reader = RecordingReader(layout, name, self.index)
            if not 0 <= rows <= reader.num_rows:
                raise MismatchError(
                    f"recording {layout.root}",
                    expected=f"at least {rows} rows, as in the checkpoint",
                    found=f"{reader.num_rows}",
                    remedy="record anew from the start",
                )
            tail = _unfilled(reader, rows, partners)
            rewind_recording(reader, log, rows)
            options: dict[str, Any] = {"queue_bytes": queue_bytes, "threads": threads, "partners": partners}
            return RecordingWriter(reader, log, lock=lock, tail=tail, **options)

    def join_recording(
        self,
        name: str,
        partners: Partners,
        *,
        queue_bytes: int = QUEUE_BYTES,
        threads: int | None = None,
    ) -> RecordingWriter:
        """Write one's own columns of a recording that the first of several processes has begun, or continues.

        Args:
            name: The recording.
            partners: The processes.
            queue_bytes: As in :meth:`create_recording`.
            threads: As in :meth:`create_recording`.

        Raises:
            DataError: There is no such recording: this process doesn't see the first one's files.
            CorruptError: A file is missing or damaged.
            StorageError: Storage refused.
        """
        reader = self.recording(name)
        tail, log = _unfilled(reader, reader.num_rows, partners), reader.read_log()
        return RecordingWriter(reader, log, tail=tail, queue_bytes=queue_bytes, threads=threads, partners=partners)

    @contextmanager
    def _locked_for_writer(self, break_lock: bool) -> Iterator[Lock]:
        """Take the lock and clean up; the lock is kept for the writer that the body makes, unless the body raises."""
        lock = self.layout.lock.lock(break_lock=break_lock)
        lock.acquire()
        try:
            self.layout.recordings.recover()
            yield lock
        except BaseException:
            lock.release()
            raise

    def recover(self, *, break_lock: bool = False) -> None:
        """Finish or undo what a crash cut short, and remove what else it left; readers never need this.

        Raises:
            LockedError: Another process is recording into the store.
            StorageError: Storage refused.
        """
        with self.layout.lock.lock(break_lock=break_lock):
            self.layout.recordings.recover()

    def delete_recording(self, name: str, *, break_lock: bool = False) -> None:
        """Delete a recording with its fits.

        Args:
            name: The recording.
            break_lock: As in :meth:`create`.

        Raises:
            DataError: There is no such recording.
            LockedError: Another process is recording into the store.
            StorageError: Storage refused.
        """
        with self.layout.lock.lock(break_lock=break_lock):
            self.layout.recordings.recover()
            self.layout.recording(self._require_name(name)).root.remove_folder()

    def verify(self) -> list[str]:
        """Read everything and compare it with its checksums.

        Returns:
            One line per problem, naming the file; empty if there is none.

        Raises:
            StorageError: Storage refused, so that nobody knows.
        """
        problems = []
        for name in self.recordings:
            try:
                problems += self.recording(name).verify()
            except DAMAGE as error:
                problems.append(f"{error}")
        return problems


def require_disk(path: Path | StoreUrl | str, partners: object) -> None:
    """Refuse object storage, where an object has one writer, to processes that write together.

    Raises:
        UsageError: That is where the store is.
    """
    if partners and isinstance(parse_place(path) if isinstance(path, str) else path, StoreUrl):
        raise UsageError(
            "`columns_by_rank`",
            expected="a store on a disk that all processes see",
            found=f"{path}",
            remedy="leave it out, so that the first process writes, or copy the store there afterwards",
        )


def _unfilled(reader: RecordingReader, rows: int, partners: Partners | None) -> np.ndarray:
    """The rows of an unfilled shard that stay, in the columns of this process."""
    whole = slice(0, reader.num_columns)
    own = whole if partners is None else own_columns(reader.schema.shape, partners.rank, partners.count)
    return reader.read(slice(rows - rows % reader.block_rows, rows), own)


def _store_beside(place: Path | StoreUrl | str) -> str:
    """What to do where no store is, by those that are near; empty if none is, or in object storage."""
    path = parse_place(place) if isinstance(place, str) else place
    return (store_of_iteration(path) or meant_path(path, "*.zarr")) if isinstance(path, Path) else ""
