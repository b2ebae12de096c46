"""The recording that ``record`` writes: a new one, the interrupted one, or a finished one, which stays as it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from causalprune.base.compute.runtime import processes
from causalprune.base.errors import DAMAGE, CausalpruneError, CorruptError, MismatchError, StorageError
from causalprune.base.paths import StoreUrl
from causalprune.base.progress import logger
from causalprune.base.units import format_bytes
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands.record.prediction import column_sample
from causalprune.config.record import RecordConfig
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.mask import Mask
from causalprune.training.ranks import ColumnPartners, DiscardingWriter
from causalprune.trajectory import RecordingInfo, RecordingReader, RecordingWriter, Store
from causalprune.trajectory.schema import HOLD_SHARE, LABEL_SMOOTHING
from causalprune.trajectory.storage import locate
from causalprune.trajectory.store import require_disk


class RepeatingWriter(DiscardingWriter):
    """Compares its rows with those of a finished recording, whose deleted checkpoint is made again.

    Nothing is written. The losses, the gradient norm and the other scalars of each row must equal the stored ones bit
    for bit; a different step would change the loss after it.

    Args:
        reader: The recording.
        rows: Number of rows that an interrupted attempt compared already.
    """

    def __init__(self, reader: RecordingReader, rows: int = 0) -> None:
        super().__init__(reader.num_columns)
        self.rows_appended = rows
        self._path = reader.path
        self._names = reader.steps.names
        self._stored = reader.steps.to_matrix().T.tolist()

    def append(self, delta: torch.Tensor, **scalars: float | torch.Tensor) -> None:
        """Compare a row.

        Raises:
            MismatchError: Another row is stored, or none.
        """
        del delta
        row = self.rows_appended
        if self._stored[row : row + 1] != [[float(scalars[name]) for name in self._names]]:
            raise MismatchError(
                f"{self._path}",
                expected="to record the same once more, because it is finished and its checkpoint is missing",
                found=f"another row {row}",
                remedy="use the device and the number of threads that it was recorded with, or pass `overwrite` to "
                "replace it with its fits",
            )
        self.rows_appended += 1

    def require_not(self, flag: torch.Tensor, error: Exception) -> None:
        """Raise the error if the flag is set: the rows are read at once, so that nothing is waited for in vain."""
        if flag:
            raise error


class RecordStore:
    """The store of ``record``.

    Args:
        output: The checkpoint that belongs to the recording.
        path: Where the store is or will be.
    """

    def __init__(self, output: CheckpointOutput, path: Path | StoreUrl) -> None:
        self.path, self.location = path, locate(path)
        self._output = output
        self._store: Store | None = None
        self._begun = False

    def open(self) -> bool:
        """Open the store if it exists; returns whether it does. Only the one writer of the output may call this.

        Raises:
            CausalpruneError: Something else or a damaged store exists, and may not be overwritten.
        """
        try:
            self._store = Store.open(self.path) if self.location.exists() else None
        except DAMAGE:
            if not self._output.config.overwrite:
                raise
        return self._store is not None

    def reader(self) -> RecordingReader:
        """The current recording."""
        if self._store is None or not processes().is_first:
            # The first process may have created it since.
            self._store = Store.open(self.path)
        return self._store.recording()

    def goes_with(self, saved: Checkpoint) -> bool:
        """Whether the store has the rows that were recorded before a state was saved.

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
            _require_position(saved)
        except DAMAGE:
            if overwrite:
                return False
            raise
        if overwrite and reader.finished and reader.fits:
            # Its last rows would be recorded anew, and its fits would no longer belong to them.
            return False
        return reader.info.identity == self._output.identity and reader.num_rows >= saved.info.position["rows"]

    def open_writer(
        self,
        start: Checkpoint,
        saved: Checkpoint | None,
        mask: Mask,
        columns: Mask,
        rows: int,
        predicted: int,
        statistics: int = 0,
    ) -> RecordingWriter | DiscardingWriter:
        """Open the recording that ``saved`` belongs to, or a new one.

        Only the first of several processes writes it, unless each is to write its own columns.

        A finished recording of the same configuration whose checkpoint was deleted stays as it is, with its fits.
        Nothing that is finished or has a fit is deleted without ``overwrite``.

        Args:
            start: The checkpoint that the recording starts from.
            saved: The state to continue from.
            mask: Which parameters aren't pruned.
            columns: Which of them have a column.
            rows: Number of rows that the recording will have.
            predicted: Bytes that they will take.
            statistics: Bytes of the layers' statistics beside them.

        Raises:
            MismatchError: The store holds another recording.
            StorageError: Too little space.
            CausalpruneError: See :class:`Store`.
        """
        writers: list[RecordingWriter | DiscardingWriter] = []
        group, config = processes(), self._output.config
        partners = ColumnPartners() if config.columns_by_rank and group.count > 1 else None

        def begin() -> None:
            writers.append(self._open_writer(start, saved, mask, rows, predicted, statistics, partners))

        try:
            group.first(begin)
        except BaseException:
            if partners is not None:
                partners.close()
            raise
        # What is recorded once more isn't written.
        (writes,) = group.any(any(isinstance(writer, RecordingWriter) for writer in writers))
        if partners is not None and not writes:
            partners.close()
        if writers:
            return writers[0]
        if partners is None or not writes:
            return DiscardingWriter(columns.num_kept)
        store = Store.open(self.path)
        return store.join_recording(store.recordings[-1], partners, threads=config.compress_threads)

    def _open_writer(
        self,
        start: Checkpoint,
        saved: Checkpoint | None,
        mask: Mask,
        rows: int,
        predicted: int,
        statistics: int,
        partners: ColumnPartners | None,
    ) -> RecordingWriter | DiscardingWriter:
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
            return store.resume_recording(
                store.recordings[-1],
                rows=done,
                threads=config.compress_threads,
                break_lock=config.break_lock,
                partners=partners,
            )
        require_disk(self.path, partners)
        free = self.location.free_bytes()
        if free is not None and predicted + statistics > free and not config.force:
            beside = f" and {format_bytes(statistics)} for the layers' statistics" if statistics else ""
            raise StorageError(
                f"disk of {self.path}",
                expected=f"about {format_bytes(predicted)} for {rows} rows{beside}",
                found=f"{format_bytes(free)} free",
                remedy="record fewer steps, with a `stride` or `codec=small`, or pass `force`",
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
        # The other processes may still be writing into it when this one fails.
        self._begun = partners is None
        extra: dict[str, float] = {HOLD_SHARE: config.hold_share} if config.hold else {}
        if config.label_smoothing:
            extra[LABEL_SMOOTHING] = config.label_smoothing
        info = RecordingInfo(
            optimizer="sgd",
            lr=config.lr,
            momentum=config.momentum,
            loss_change=config.loss_change,  # type: ignore[arg-type]
            stride=config.stride,
            batch_size=config.batch_size,
            seed=config.seed,
            start_sha256=start.sha256,
            start_weights=mask.index.digest(start.weights),
            identity=self._output.identity,
            extra=extra,
            sample=column_sample(config),
        )
        return self._store.create_recording(
            info,
            mask.numpy(),
            max_rows=rows,
            codec=config.codec,
            threads=config.compress_threads,
            break_lock=config.break_lock,
            partners=partners,
        )

    def withdraw(self) -> None:
        """Remove the recording that this process began and couldn't end, if there is no saved state to resume it from.

        The next attempt would begin anew in any case, and with corrected options it would be refused.
        """
        if self._begun and not (self._output.has_saved_state or self._output.path.exists()):
            # What went wrong before says more.
            with suppress(CausalpruneError):
                Store.delete(self.path)

    def _another(self, expected: str, reader: RecordingReader, what: str) -> MismatchError:
        return MismatchError(
            f"{self.path}",
            expected=expected,
            found=f"recording {reader.name} {what}",
            remedy="pass `overwrite` to replace it, or choose another `store`",
        )


def _require_position(saved: Checkpoint) -> None:
    position, pending = saved.info.position, saved.info.position.get("pending")
    row = {"loss_before": float, "lr": float, "epoch": int, "batch": int, "grad_norm": float, "steps": int}
    counted = all(type(position.get(name)) is int and position[name] >= 0 for name in ("steps", "rows"))
    types = {name: type(value) for name, value in pending.items()} if isinstance(pending, dict) else None
    if not counted or types != (row if "pending/delta" in saved.extra else {}):
        raise CorruptError("saved state", expected="a position in the recording", found=f"{position}"[:100])
