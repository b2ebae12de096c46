"""The recording that ``record`` writes into: a new one, the interrupted one, or a finished one that stays as it is."""

from __future__ import annotations

from pathlib import Path

from causalprune.base.errors import CausalpruneError, CorruptError, MismatchError, StorageError
from causalprune.base.paths import StoreUrl
from causalprune.base.progress import logger
from causalprune.base.runtime import processes
from causalprune.base.units import format_bytes
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands.record.loop import RepeatingWriter
from causalprune.config.record import RecordConfig
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.trajectory import RecordingInfo, RecordingReader, RecordingWriter, Store
from causalprune.trajectory.storage import locate


class RecordStore:
    """The store of ``record``.

    Args:
        output: The checkpoint that goes with the recording.
        path: Where the store is, or will be.
    """

    def __init__(self, output: CheckpointOutput, path: Path | StoreUrl) -> None:
        self.path, self.location = path, locate(path)
        self._output = output
        self._store: Store | None = None

    def open(self) -> bool:
        """Look at what is there, once nobody else writes it; returns whether it is a store.

        Raises:
            CausalpruneError: No store or a damaged one is there, and may not be overwritten.
        """
        try:
            self._store = Store.open(self.path) if self.location.exists() else None
        except CausalpruneError:
            if not self._output.config.overwrite:
                raise
        return self._store is not None

    def reader(self) -> RecordingReader:
        """The recording as it is now."""
        if self._store is None or not processes().is_first:
            # The first process may have made it since.
            self._store = Store.open(self.path)
        return self._store.recording()

    def goes_with(self, saved: Checkpoint) -> bool:
        """Whether the store has the rows that a saved state has seen.

        Raises:
            CausalpruneError: The store is damaged, and may not be overwritten.
        """
        if self._store is None:
            return False
        overwrite = self._output.config.overwrite
        try:
            if not self._store.recordings:
                return False
            reader = self._store.recording()
            _check_position(saved)
        except CausalpruneError:
            if overwrite:
                return False
            raise
        if overwrite and reader.finished and reader.fits:
            # Its last rows would be recorded anew, and its fits be those of others.
            return False
        return reader.info.identity == self._output.identity and reader.num_rows >= saved.info.position["rows"]

    def open_writer(
        self, start: Checkpoint, saved: Checkpoint | None, mask: Mask, rows: int, predicted: int
    ) -> RecordingWriter | RepeatingWriter:
        """Open the recording that ``saved`` belongs to, or a new one.

        A finished recording of the very same configuration, whose checkpoint was deleted, stays as it is with its fits.
        Nothing that is finished or has a fit is deleted unless it may be overwritten.

        Args:
            start: The checkpoint that the recording starts from.
            saved: The state to go on from.
            mask: Which parameters are recorded.
            rows: How many rows there will be.
            predicted: Bytes that they will take.

        Raises:
            MismatchError: Something else is recorded there.
            StorageError: Too little space.
            CausalpruneError: See :class:`Store`.
        """
        config: RecordConfig = self._output.config
        store, done = self._store, 0 if saved is None else saved.info.position["rows"]
        if store is not None and not config.overwrite:
            last = store.recording() if store.recordings else None
            if last is not None and last.info.identity != self._output.identity:
                raise self._another("no recording, or the interrupted one of this configuration", last, "of another")
            if last is not None and last.finished:
                logger.info("%s is finished: taking its steps once more, for its missing checkpoint", self.path)
                store.recover(break_lock=config.break_lock)
                return RepeatingWriter(last, done)
            for reader in [] if saved is not None else [store.recording(name) for name in store.recordings]:
                if reader.finished or reader.fits:
                    fits = ", ".join(reader.fits)
                    what = f"with the fits {fits}" if fits else "that is finished"
                    raise self._another("nothing finished or fitted in a store that is recorded anew", reader, what)
        if store is not None and saved is not None:
            return store.resume_recording(store.recordings[-1], rows=done, break_lock=config.break_lock)
        free = self.location.free_bytes()
        if free is not None and predicted > free and not config.force:
            raise StorageError(
                f"disk of {self.path}",
                expected=f"about {format_bytes(predicted)} for {rows} rows",
                found=f"{format_bytes(free)} free",
                remedy="record fewer steps, with a --stride or --codec small, or pass --force",
            )
        if self.location.exists():
            Store.delete(self.path, break_lock=config.break_lock)
        self._store = Store.create(
            self.path,
            index=mask.index,
            model=start.info.model.to_json(),
            start_sha256=start.sha256,
            break_lock=config.break_lock,
        )
        info = RecordingInfo(
            optimizer="sgd",
            lr=config.lr,
            momentum=config.momentum,
            loss_change=config.loss_change,  # type: ignore[arg-type]
            stride=config.stride,
            batch_size=config.batch_size,
            seed=config.seed,
            start_sha256=start.sha256,
            identity=self._output.identity,
        )
        return self._store.create_recording(
            info, mask.numpy(), max_rows=rows, codec=config.codec, break_lock=config.break_lock
        )

    def _another(self, expected: str, reader: RecordingReader, what: str) -> MismatchError:
        return MismatchError(
            f"{self.path}",
            expected=expected,
            found=f"recording {reader.name} {what}",
            remedy="pass --overwrite to replace it, or choose another --store",
        )


def _check_position(saved: Checkpoint) -> None:
    position = saved.info.position
    counts = [position.get("steps"), position.get("rows")]
    pending = position.get("pending")
    row = {"loss_before": float, "lr": float, "epoch": int, "batch": int, "grad_norm": float, "steps": int}
    empty = pending == {} and "pending/delta" not in saved.extra
    whole = isinstance(pending, dict) and {k: type(v) for k, v in pending.items()} == row
    if not all(type(n) is int and n >= 0 for n in counts) or not (empty or (whole and "pending/delta" in saved.extra)):
        raise CorruptError("saved state", expected="a position in the recording", found=f"{position}"[:100])
