"""Recording: the training loop copies each row into a buffer, and a thread does the rest."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from causalprune.base.errors import DataError
from causalprune.base.locks import Lock
from causalprune.trajectory.commits import Commit, CommitLog
from causalprune.trajectory.lifecycle import closed, finish_recording, make_room, opened
from causalprune.trajectory.reader import RecordingReader
from causalprune.trajectory.row_block import RowBlock
from causalprune.trajectory.shard import NonFiniteError, write_shard
from causalprune.trajectory.steps import STEP_FIELDS, Steps
from causalprune.trajectory.storage.location import Location

if TYPE_CHECKING:
    import torch

QUEUE_BYTES = 512 * 2**20
"""Default memory for rows that aren't stored yet."""


class RecordingWriter:
    """Appends rows to a recording; made by a :class:`Store`.

    A row costs the caller one copy. A thread rounds, compresses, writes and commits full blocks; when it falls behind
    by more than ``queue_bytes``, the next row waits. An error in the thread is raised by the next call and by every
    later one.

    As a context manager it closes at the end of the body, and aborts when the body raises. Only :meth:`finish` marks
    the recording as complete. What is still open when the interpreter ends is closed then.

    Attributes:
        rows_appended: Rows of the recording so far, stored or not.
        untrained: Names of the parameters that no row has trained so far; noted with each commit.
        noted: What else is noted with each commit, JSON-ready, of which equal keys are equal for equal rows; replace it
            to change it.
        end_weights: Returns the hash of the weights after the last row, by ``ParameterIndex.digest``, or nothing; it
            is called when the writer is closed, and the hash is noted.

    Args:
        recording: The recording.
        log: Its commits.
        lock: The lock of the store, which the writer releases when it ends.
        tail: (n, P_active) rows of the last, unfilled shard, already committed.
        queue_bytes: Memory for rows that aren't stored yet; at least two blocks are used.
    """

    def __init__(
        self,
        recording: RecordingReader,
        log: CommitLog,
        *,
        lock: Lock | None = None,
        tail: np.ndarray | None = None,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._recording = recording
        self._schema = schema = recording.schema
        self._log = log
        self._lock = lock
        self._capacity = max(2, queue_bytes // schema.shape.block_bytes)
        self._allocated = 0
        self._pinned = False
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
            self._block.scalars[: len(tail)] = log.commits[-1].steps.to_matrix().T
            self._block.rows = len(tail)
        self._thread = threading.Thread(target=self._run, name="causalprune-write", daemon=True)
        self._thread.start()
        opened(self)

    @property
    def path(self) -> Location:
        """The recording's folder."""
        return self._recording.path

    def row(self) -> np.ndarray:
        """The buffer of the next row, (P_active,) float32: fill it and pass it to :meth:`append` to save a copy."""
        row: np.ndarray = self.room()[0]
        return row

    def room(self) -> np.ndarray:
        """The buffer of the next rows, (n ≥ 1, P_active) float32: fill some, then :meth:`append` each in order."""
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
    ) -> None:
        """Append a row.

        A CUDA tensor is copied to pinned memory asynchronously, on the current stream.

        Args:
            delta: (P_active,) signed Δθ, float32; may be modified as soon as this returns, by the same stream.
            loss_before: Loss before the step.
            loss_after: Loss after it.
            lr: Learning rate η_t of the step.
            epoch: Number of the epoch.
            batch: Number of the batch in its epoch.
            grad_norm: Euclidean norm of the gradient.

        Raises:
            DataError: A value, or one of an earlier row, is NaN or infinite.
            CausalpruneError: Whatever else stopped the thread.
        """
        self._pinned = not isinstance(delta, np.ndarray) and delta.is_cuda
        block = self._current()
        if tuple(delta.shape) != (self._schema.shape.columns,):
            raise ValueError(f"delta has shape {tuple(delta.shape)}, not ({self._schema.shape.columns},)")
        scalars = (loss_before, loss_after, lr, epoch, batch, grad_norm)
        for position, value in enumerate(scalars):
            number = float(value)
            self._require_finite(number, position, self.rows_appended)
            block.scalars[block.rows, position] = number
        block.put_delta(delta)
        block.rows += 1
        self.rows_appended += 1
        if block.rows == self._schema.shape.rows:
            self._block = None
            self._submit(block)

    def flush(self) -> int:
        """Store everything appended so far, durably.

        Returns:
            The number of rows, all of them committed.

        Raises:
            CausalpruneError: Whatever stopped the thread.
        """
        self._require_alive()
        if self._block is not None and self.rows_appended > self._committed:
            self._submit(self._block)
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._committed == self.rows_appended)
        self._require_alive()
        return self._committed

    def finish(self) -> None:
        """Store everything, mark the recording as complete, and close.

        Raises:
            DataError: No row was appended.
            CausalpruneError: Whatever stopped the thread.
        """
        try:
            if self.flush() == 0:
                where = f"recording {self._recording.path}"
                raise DataError(where, expected="at least one row", found="none", remedy="record more steps")
            finish_recording(self._recording, self._log, self.end_weights())
        finally:
            self.abort()

    def close(self) -> None:
        """Store everything and close; the recording can be continued later. Closing twice does nothing."""
        if self._closed:
            return
        try:
            if self.flush() and self._log.commits[-1].weights != (weights := self.end_weights()):
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
        self._thread.join()
        closed(self)
        self._block = None
        self._free.clear()
        if self._lock is not None:
            self._lock.release()

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
            raise _not_finite(f"{STEP_FIELDS[position]} of row {row}", value)

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
        return RowBlock(self._schema.shape.rows, self._schema.shape.columns, pinned=self._pinned)

    def _submit(self, block: RowBlock) -> None:
        with self._changed:
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
        with self._changed:
            if rows == self._schema.shape.rows:
                self._free.append(block)
            self._changed.notify_all()
        return True

    def _lacks_spare(self) -> bool:
        """Whether the second block is missing: made while the first one fills, it costs the caller no time."""
        return self._allocated == 1 and self._schema.max_rows > self._schema.shape.rows

    def _commit(self, block: RowBlock, rows: int, untrained: tuple[str, ...], noted: dict[str, Any]) -> None:
        """Write a block's shard, then its commit: in this order a crash is harmless."""
        block.wait()
        first = block.shard * self._schema.shape.rows
        scalars = block.scalars[:rows]
        for row, position in np.argwhere(~np.isfinite(scalars)):
            self._require_finite(float(scalars[row, position]), int(position), first + int(row))
        if first + rows > self._announced:
            # Twice as many, so that a recording of any length changes its shape a few times only.
            self._announced = max(2 * self._announced, first + rows)
            make_room(self._recording, self._log, self._announced)
        replaces = block.shard < len(self._log.commits)
        try:
            file = write_shard(
                self._recording.layout.shard(block.shard),
                block.values[:rows],
                self._schema.shape,
                self._schema.codec,
                self._log.require_mine,
                (lambda new: self._log.append_prepare(block.shard, rows, new)) if replaces else None,
            )
        except NonFiniteError as error:
            parameter = self._recording.describe_column(error.column)
            raise _not_finite(f"delta of row {first + error.row}, {parameter}", error.value) from error
        steps = Steps.from_matrix(scalars)
        self._log.append_commit(Commit(block.shard, rows, file, steps, untrained, noted=noted))
        self._committed = first + rows


def _not_finite(subject: str, value: float) -> DataError:
    remedy = "record with a smaller learning rate"
    return DataError(subject, expected="a finite number", found=f"{value}", remedy=remedy)
