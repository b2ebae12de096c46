"""Recording: the training loop copies each row into a buffer, and a thread does the rest."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from causalprune.base.compute.launchers import own_cores
from causalprune.base.errors import DataError
from causalprune.base.locks import Lock
from causalprune.trajectory.columns.parts import (
    Partners,
    own_columns,
    plain_notes,
    summed_notes,
    together,
    write_shard_together,
)
from causalprune.trajectory.commits import Commit, CommitLog, ShardFile
from causalprune.trajectory.lifecycle import closed, finish_recording, keep_layer_statistics, make_room, opened
from causalprune.trajectory.reader import RecordingReader
from causalprune.trajectory.row_block import RowBlock, on_device
from causalprune.trajectory.schema import RecordingInfo
from causalprune.trajectory.shard import NonFiniteError, encoded_chunks, write_shard
from causalprune.trajectory.steps import STEP_FIELDS, Steps
from causalprune.trajectory.storage.location import Location
from causalprune.trajectory.threads import Helpers

if TYPE_CHECKING:
    import torch

_PARTING_SECONDS = 60.0
"""How long a writer that gives up waits for its partners."""

QUEUE_BYTES = 512 * 2**20
"""Default memory for rows that aren't stored yet."""


class RecordingWriter:
    """Appends rows to a recording; made by a :class:`Store`.

    A row costs the caller one copy. A thread rounds, compresses, writes and commits full blocks, with helpers that
    compress, too; when it falls behind by more than ``queue_bytes``, the next row waits. An error in the thread is
    raised by the next call and by every later one.

    By default as many threads compress as cores are left beside those that compute: the cores of this process, minus
    PyTorch's threads where deltas come from the CPU, else minus one. Where none is left, compression and training would
    only take turns on the same cores, and PyTorch's threads spin while they wait for each other. So the caller then
    waits for each full block until it is compressed, by a thread on every core, which takes less time in all.

    As a context manager it closes at the end of the body, and aborts when the body raises. Only :meth:`finish` marks
    the recording as complete. What is still open when the interpreter ends is closed then.

    Several processes can write a recording together, each its own columns: then all append the same rows, and call
    :meth:`flush` and :meth:`finish`, in which they wait for each other. A block is committed when each of them has
    stored its part. Since nobody knows whether the others are still there, :meth:`close` stores nothing more.

    Attributes:
        rows_appended: Rows of the recording so far, stored or not.
        untrained: Names of the parameters that no row has trained so far; noted with each commit.
        noted: What else is noted with each commit, JSON-ready, of which equal keys are equal for equal rows; replace it
            to change it.
        columns: Which of the recording's columns this process writes: all, unless there are partners.
        end_weights: Returns the hash of the weights after the last row, by ``ParameterIndex.digest``, or nothing; it
            is called when the writer is closed, and the hash is noted.

    Args:
        recording: The recording.
        log: Its commits.
        lock: The lock of the store, which the writer releases when it ends.
        tail: (n, own columns) rows of the last, unfilled shard, already committed.
        queue_bytes: Memory for rows that aren't stored yet; at least two blocks are used.
        threads: Threads that compress beside the caller's computation; None for as many as cores are left.
        partners: The processes that write together; None for this one alone. The lock is that of the first one.
    """

    def __init__(
        self,
        recording: RecordingReader,
        log: CommitLog,
        *,
        lock: Lock | None = None,
        tail: np.ndarray | None = None,
        queue_bytes: int = QUEUE_BYTES,
        threads: int | None = None,
        partners: Partners | None = None,
    ) -> None:
        self._recording = recording
        self._schema = schema = recording.schema
        self._partners = partners
        self._is_first = partners is None or partners.rank == 0
        whole = slice(0, schema.shape.columns)
        self.columns = whole if partners is None else own_columns(schema.shape, partners.rank, partners.count)
        self._shape = replace(schema.shape, columns=self.columns.stop - self.columns.start)
        # Of these rows all processes have noted the sum.
        self._noted_before = log.noted.get("vanished", {})
        self._declared = schema.info.step_scalars
        self._log = log
        self._lock = lock
        # By all columns, because a process may have none, and processes that write together wait for each other.
        self._capacity = max(2, queue_bytes // schema.shape.block_bytes)
        self._allocated = 0
        self._pinned = False
        self._threads = threads
        self._helpers: Helpers | None = None
        # Whether the caller waits until a block is compressed; and how many blocks it handed over, and are compressed.
        self._waits = False
        self._submitted = self._compressed = 0
        self._free: list[RowBlock] = []
        self._pending: deque[tuple[RowBlock, int, tuple[str, ...], dict[str, Any]]] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._closed = False
        self.rows_appended = self._committed = log.rows
        self.untrained = log.untrained
        self.noted = log.noted
        self.end_weights: Callable[[], str] = str
        self._announced = max(schema.max_rows, log.rows)
        self._block: RowBlock | None = None
        if tail is not None and len(tail):
            self._block = self._allocate()
            self._block.reuse(log.rows // schema.shape.rows)
            self._block.values[: len(tail)] = tail
            self._block.scalars[: len(tail)] = log.commits[-1].read_steps.to_matrix().T
            self._block.rows = len(tail)
        self._thread = threading.Thread(target=self._run, name="causalprune-write", daemon=True)
        self._thread.start()
        opened(self)

    @property
    def path(self) -> Location:
        """The recording's folder."""
        return self._recording.path

    @property
    def info(self) -> RecordingInfo:
        """How the recording is made."""
        return self._schema.info

    @property
    def active(self) -> np.ndarray:
        """(P,) bool, True where a parameter has a column.

        Raises:
            CorruptError: Missing or damaged.
        """
        return self._recording.active

    @property
    def shared(self) -> bool:
        """Whether other processes write other columns."""
        return self._partners is not None

    @property
    def closed(self) -> bool:
        """Whether it takes no more rows."""
        return self._closed

    @property
    def rows_committed(self) -> int:
        """Rows of the recording that are stored durably."""
        return self._committed

    def committed_steps(self, start: int) -> tuple[int, Steps]:
        """The scalars of the committed rows of whole shards that include the row ``start`` and those after it.

        Returns:
            The number of the first of these rows, and their scalars.
        """
        shard = start // self._schema.shape.rows
        steps = [commit.read_steps for commit in self._log.commits[shard:]]
        return shard * self._schema.shape.rows, Steps.concatenate(steps, self._declared)

    def row(self) -> np.ndarray:
        """The buffer of the next row, (own columns,) float32: fill it and pass it to :meth:`append` to save a copy."""
        row: np.ndarray = self.room()[0]
        return row

    def room(self) -> np.ndarray:
        """The buffer of the next rows, (n ≥ 1, own columns) float32: fill some, then :meth:`append` each in order."""
        block = self._current()
        return block.values[block.rows :]

    def append(
        self,
        delta: np.ndarray | torch.Tensor,
        *,
        loss_before: float | torch.Tensor,
        loss_after: float | torch.Tensor,
        lr: float,
        epoch: int,
        batch: int,
        grad_norm: float | torch.Tensor,
        **declared: float | torch.Tensor,
    ) -> None:
        """Append a row.

        CUDA tensors are copied to pinned memory asynchronously, on the current stream: the caller doesn't wait for the
        device. Values on a device are checked before their block is committed, others at once.

        Args:
            delta: (own columns,) signed Δθ, float32; may be modified as soon as this returns, by the same stream.
            loss_before: Loss before the step.
            loss_after: Loss after it.
            lr: Learning rate η_t of the step.
            epoch: Number of the epoch.
            batch: Number of the batch in its epoch.
            grad_norm: Euclidean norm of the gradient.
            declared: The scalars that the recording declares besides, by name.

        Raises:
            DataError: A value, or one of an earlier row, is NaN or infinite.
            CausalpruneError: Whatever else stopped the thread.
        """
        if tuple(delta.shape) != (self._shape.columns,):
            raise ValueError(f"delta has shape {tuple(delta.shape)}, not ({self._shape.columns},)")
        if declared.keys() != set(self._declared):
            raise ValueError(f"scalars {sorted(declared)}, not {sorted(self._declared)}")
        block = self._next_block(delta)
        usual = (loss_before, loss_after, lr, epoch, batch, grad_norm)
        scalars = (*usual, *(declared[name] for name in self._declared))
        for position, value in enumerate(scalars):
            if self._pinned and on_device(value):
                block.put_scalar(position, value)  # type: ignore[arg-type]
                continue
            number = float(value)
            self._require_finite(number, position, self.rows_appended)
            block.scalars[block.rows, position] = number
        block.put_delta(delta)
        block.rows += 1
        self.rows_appended += 1
        if block.rows == self._schema.shape.rows:
            self._block = None
            self._submit(block)
            if self._waits:
                self._wait_for(lambda: self._compressed == self._submitted)

    def require_not(self, flag: torch.Tensor, error: Exception) -> None:
        """Let ``error`` stop the writer before the next row is committed, if a flag on a device is set.

        Args:
            flag: A scalar of bool.
            error: What is raised by later calls.
        """
        self._next_block(flag).require_not(flag, error)

    def flush(self) -> int:
        """Store everything appended so far, durably.

        Returns:
            The number of rows, all of them committed.

        Raises:
            CausalpruneError: Whatever stopped the thread.
        """
        self._require_alive()
        if self._block is not None and self._block.rows and self.rows_appended > self._committed:
            self._submit(self._block)
        self._wait_for(lambda: self._committed == self.rows_appended)
        return self._committed

    def keep_layer_statistics(self, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
        """Store what was measured of the layers at the weights that the recording ends with.

        A recording that is continued from an earlier row loses it.

        Args:
            arrays: As for a fit, see :meth:`causalprune.trajectory.array_groups.FitStore.write`.
            attributes: As for a fit.

        Raises:
            LockedError: Another writer has taken over.
            StorageError: Storage refused.
        """
        keep_layer_statistics(self._recording, self._log, arrays, attributes)

    def finish(self) -> None:
        """Store everything, mark the recording as complete, and close.

        Raises:
            DataError: No row was appended.
            CausalpruneError: Whatever stopped the thread.
        """
        try:
            if self.flush() == 0:
                where = f"recording {self._recording.path}"
                raise DataError(
                    where,
                    expected="at least one row",
                    found="none",
                    remedy="take steps, by Recorder.step in a loop of your own",
                )
            if self._partners is None:
                self._mark_finished()
            else:
                together(self._partners, self._mark_finished)
        finally:
            self.abort()

    def _mark_finished(self) -> None:
        if self._is_first:
            finish_recording(self._recording, self._log, self.end_weights())

    def close(self) -> None:
        """Store everything and close; the recording can be continued later. Closing twice does nothing."""
        if self._closed:
            return
        try:
            if (
                self._partners is None
                and self.flush()
                and self._log.commits[-1].weights != (weights := self.end_weights())
            ):
                self._log.append_commit(replace(self._log.commits[-1], weights=weights))
        finally:
            self.abort()

    def abort(self) -> None:
        """Close without storing the rows that aren't stored yet."""
        if self._closed:
            return
        with self._changed:
            self._closed = True
            self._pending.clear()
            self._changed.notify_all()
        # Partners that have failed may never answer.
        self._thread.join(None if self._partners is None else _PARTING_SECONDS)
        closed(self)
        if self._lock is not None:
            self._lock.release()
        if self._thread.is_alive():
            return
        if self._helpers is not None:
            self._helpers.close()
        if self._partners is not None:
            self._partners.close()
        self._block = None
        self._free.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise ValueError("the recording was closed")

    def _require_finite(self, value: float, position: int, row: int) -> None:
        if not math.isfinite(value):
            raise _not_finite(f"{(*STEP_FIELDS, *self._declared)[position]} of row {row}", value)

    def _wait_for(self, done: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or done())
        self._require_alive()

    def _next_block(self, source: np.ndarray | torch.Tensor) -> RowBlock:
        """The block that takes the next row, in memory into which ``source`` is copied asynchronously."""
        if self._helpers is None:
            self._start_helpers(source)
        block = self._current()
        if self._pinned or on_device(source):
            self._pinned = True
            block.pin()
        return block

    def _start_helpers(self, source: np.ndarray | torch.Tensor) -> None:
        """Decide how many threads compress, now that it is known who computes."""
        threads = self._threads
        if threads is None:
            cores, busy = own_cores(), 1
            if not isinstance(source, np.ndarray) and not on_device(source):
                import torch

                busy = torch.get_num_threads()
            self._waits = cores <= busy
            threads = cores if self._waits else cores - busy
        self._helpers = Helpers(max(0, min(threads, self._shape.chunks) - 1))

    def _current(self) -> RowBlock:
        """The block that takes the next row; waits until there is one."""
        self._require_alive()
        if self._block is not None:
            return self._block
        shard = self.rows_appended // self._schema.shape.rows
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure is not None or bool(self._free) or self._allocated < self._capacity
            )
            block = self._free.pop() if self._free else None
        self._require_alive()
        self._block = block or self._allocate()
        self._block.reuse(shard)
        return self._block

    def _allocate(self) -> RowBlock:
        with self._changed:
            self._allocated += 1
            self._changed.notify_all()
        return RowBlock(self._shape.rows, self._shape.columns, pinned=self._pinned, declared=len(self._declared))

    def _submit(self, block: RowBlock) -> None:
        with self._changed:
            self._submitted += 1
            self._pending.append((block, block.rows, self.untrained, self.noted))
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            # Imports what the codec needs; once the interpreter ends, that may be too late.
            self._schema.codec.encode(np.zeros((1, 1), np.float32))
            while self._work():
                pass
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._pending.clear()
                self._changed.notify_all()

    def _work(self) -> bool:
        """Wait for something to do and do it; False when there will be nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._pending) or self._closed or self._lacks_spare())
            if self._closed and not self._pending:
                return False
            pending = self._pending.popleft() if self._pending else (None, self._schema.shape.rows, (), {})
        block, rows, untrained, noted = pending
        if block is None:
            block = self._allocate()
            # The first write to a page waits for the system to allocate it.
            block.values.fill(0)
        else:
            self._commit(block, rows, untrained, noted)
            return True
        with self._changed:
            self._free.append(block)
            self._changed.notify_all()
        return True

    def _lacks_spare(self) -> bool:
        """Whether the second block is missing: made while the first one fills, it costs the caller no time."""
        return (
            self._allocated == 1
            and self._helpers is not None
            and not self._waits
            and self._schema.max_rows > self._schema.shape.rows
        )

    def _commit(self, block: RowBlock, rows: int, untrained: tuple[str, ...], noted: dict[str, Any]) -> None:
        """Write a block's shard, then its commit: in this order a crash is harmless."""
        shard, first = block.shard, block.shard * self._schema.shape.rows
        # Copied, because the block may take other rows once it is compressed.
        scalars = np.empty((rows, block.scalars.shape[1]))

        def complete() -> np.ndarray:
            block.wait()
            scalars[:] = block.scalars[:rows]
            for row, position in np.argwhere(~np.isfinite(scalars)):
                self._require_finite(float(scalars[row, position]), int(position), first + int(row))
            if self._is_first and first + rows > self._announced:
                # Twice as many, so that a recording of any length changes its shape a few times only.
                self._announced = max(2 * self._announced, first + rows)
                make_room(self._recording, self._log, self._announced)
            return block.values[:rows]

        def compressed(new: ShardFile) -> None:
            with self._changed:
                self._compressed += 1
                if rows == self._schema.shape.rows:
                    self._free.append(block)
                self._changed.notify_all()
            if self._is_first and shard < len(self._log.commits):
                self._log.append_prepare(shard, rows, new)

        def commit(file: ShardFile, noted: list[dict[str, Any]]) -> None:
            steps, counts = Steps.from_matrix(scalars, self._declared), summed_notes(noted, self._noted_before)
            self._log.append_commit(Commit(shard, rows, file, steps, untrained, noted=counts))

        def encode() -> tuple[list[bytes], dict[str, Any]]:
            helpers = self._helpers or Helpers(0)
            with self._named(first):
                chunks = encoded_chunks(complete(), self._shape, self._schema.codec, helpers)
                return [b"".join(parts) for parts in chunks], plain_notes(noted)

        location, fence = self._recording.layout.shard(shard), self._log.require_mine
        if self._partners is not None:
            write_shard_together(location, encode, self._partners, fence, compressed, commit)
        else:
            with self._named(first):
                values, codec = complete(), self._schema.codec
                file = write_shard(location, values, self._shape, codec, fence, compressed, self._helpers)
            commit(file, [plain_notes(noted)])
        with self._changed:
            self._committed = first + rows
            self._changed.notify_all()

    @contextmanager
    def _named(self, first: int) -> Iterator[None]:
        """Name the row, from ``first`` on, and the parameter of a value that isn't finite."""
        try:
            yield
        except NonFiniteError as error:
            parameter = self._recording.describe_column(self.columns.start + error.column)
            raise _not_finite(f"delta of row {first + error.row}, {parameter}", error.value) from error


def _not_finite(subject: str, value: float) -> DataError:
    remedy = "record with a smaller learning rate"
    return DataError(subject, expected="a finite number", found=f"{value}", remedy=remedy)
