"""Recording once more what is recorded already: every row is compared with the one that is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causalprune.errors import MismatchError
from causalprune.store.codec import find_codec
from causalprune.store.reader import RecordingReader
from causalprune.store.steps import STEP_FIELDS

if TYPE_CHECKING:
    import torch


class ComparingWriter:
    """Takes rows as a :class:`RecordingWriter` does and writes none; a row that isn't the stored one is an error.

    Rows are compared as they are stored: deltas rounded, bit for bit, and all scalars.

    Args:
        reader: A finished recording.
        codec: Name of the codec that it was recorded with; it may have been stored with another one since.
        rows: Rows that were compared earlier.
    """

    def __init__(self, reader: RecordingReader, codec: str, rows: int = 0) -> None:
        self._reader = reader
        self._codecs = (find_codec(codec), reader.schema.codec)
        self.rows_appended = rows
        self._row = np.empty(reader.num_columns, np.float32)
        self._rounded = np.empty_like(self._row)
        self._scalars = reader.steps.to_matrix()
        self._first = 0
        self._block = np.empty((0, reader.num_columns), np.float32)

    def row(self) -> np.ndarray:
        """Memory for a row, (P_active,) float32, the same for every one."""
        return self._row

    def append(self, delta: np.ndarray | torch.Tensor, **scalars: float) -> None:
        """Compare a row.

        Args:
            delta: (P_active,) signed Δθ, float32.
            scalars: The others of :meth:`RecordingWriter.append`.

        Raises:
            MismatchError: Another row is stored there, or none.
        """
        number = self.rows_appended
        values = delta if isinstance(delta, np.ndarray) else delta.detach().cpu().numpy()
        for codec in self._codecs:
            codec.round(np.ascontiguousarray(values), self._rounded)
            values = self._rounded
        same = (
            number < self._reader.num_rows
            and [float(scalars[name]) for name in STEP_FIELDS] == self._scalars[:, number].tolist()
            and np.array_equal(self._rounded.view(np.uint32), self._stored(number).view(np.uint32))
        )
        if not same:
            raise self._mismatch(f"another row {number}")
        self.rows_appended += 1

    def flush(self) -> int:
        """The rows compared so far; there is nothing to store."""
        return self.rows_appended

    def finish(self) -> None:
        """Check that no stored row is left.

        Raises:
            MismatchError: There is one.
        """
        if self.rows_appended != self._reader.num_rows:
            raise self._mismatch(f"{self.rows_appended} of {self._reader.num_rows} rows")

    def close(self) -> None:
        """There is nothing to close."""

    def _stored(self, number: int) -> np.ndarray:
        """The stored row of that number, out of its block."""
        if not self._first <= number < self._first + len(self._block):
            self._first = number - number % self._reader.block_rows
            stop = min(self._first + self._reader.block_rows, self._reader.num_rows)
            self._block = self._reader.read_rows(self._first, stop)
        row: np.ndarray = self._block[number - self._first]
        return row

    def _mismatch(self, found: str) -> MismatchError:
        return MismatchError(
            f"{self._reader.path}",
            expected="to record the same once more, because it is finished and its checkpoint is missing",
            found=found,
            remedy="use the device and the number of threads that it was recorded with, or pass --overwrite to replace "
            "it with its fits",
        )
