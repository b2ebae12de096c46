"""Reading a recording in blocks of columns or rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import google_crc32c
import numpy as np

from causalprune.base.errors import UsageError
from causalprune.base.registry import nearest
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.array_groups import LAYER_STATISTICS, ArrayGroup, Fit, FitStore
from causalprune.trajectory.commits import CommitLog
from causalprune.trajectory.layout import RecordingLayout
from causalprune.trajectory.schema import RecordingInfo, RecordingSchema
from causalprune.trajectory.shard_reader import Kernel, ShardReader
from causalprune.trajectory.steps import Steps
from causalprune.trajectory.steps.learning_rates import LearningRates
from causalprune.trajectory.steps.rounding import vanished_share
from causalprune.trajectory.storage.location import Location, damaged
from causalprune.trajectory.threads import BufferPool, prefetched
from causalprune.trajectory.verify import consistent_log, shards_of_wrong_length, stored_steps, verify_recording
from causalprune.trajectory.zarr_files import (
    METADATA,
    attributes_checksum,
    canonical_bytes,
    read_array,
    read_attributes,
)


class RecordingReader:
    """Reads the rows that were recorded when it was opened, also while a writer goes on.

    Reading the metadata needs neither zarr nor torch. Nothing is decoded before it is needed.

    Attributes:
        layout: The recording's files.
        name: Name of the recording.
        index: The store's parameters.
        info: How it was made.
        schema: Its shape and codec.
        num_rows: T, from the commit log.
        num_columns: P_active.
        finished: Whether the recording is complete.

    Args:
        layout: The recording's files.
        name: Name of the recording.
        index: The store's parameters.
        quick: Take the scalars of a complete recording from their array, which only :meth:`verify` compares with the
            commit log; that has them in decimal, which takes ten times as long to read.

    Raises:
        CorruptError: A file is missing, damaged, or contradicts another.
    """

    def __init__(self, layout: RecordingLayout, name: str, index: ParameterIndex, *, quick: bool = False) -> None:
        self._quick = quick
        self.layout = layout
        self.name = name
        self.index = index
        attributes = read_attributes(layout.metadata, "recording")
        self._seed = attributes_checksum(attributes)
        self.schema = RecordingSchema.from_json(attributes, f"{layout.metadata}")
        self.info: RecordingInfo = self.schema.info
        self.num_columns = self.schema.shape.columns
        if self.num_columns > index.total:
            raise damaged(layout.metadata, expected=f"at most {index.total} columns", found=self.num_columns)
        self._log = consistent_log(layout, self.schema, self.read_log)
        self.num_rows = self._log.rows
        self.finished = self._log.finished
        self._shards = ShardReader(layout, self.schema, self._log, self.read_log, self.describe_column)
        self._fits = FitStore(layout)

    def read_log(self) -> CommitLog:
        """Read the commit log again, including rows committed since this reader was opened.

        Raises:
            CorruptError: It is missing or damaged.
        """
        return CommitLog.read(self.layout.commit_log, self._seed, self.block_rows, self.info.step_scalars)

    @cached_property
    def active(self) -> np.ndarray:
        """(P,) bool, True where a parameter has a column.

        Raises:
            CorruptError: Missing or damaged.
        """
        active = self._read_mask(self.layout.active, self.schema.active_checksum)
        if np.count_nonzero(active) != self.num_columns:
            raise damaged(self.layout.active, expected=f"{self.num_columns} columns", found=np.count_nonzero(active))
        return active

    @cached_property
    def candidates(self) -> np.ndarray:
        """(P,) bool, the parameters of which a sample has columns; without a sample, all of them have.

        Raises:
            CorruptError: Missing or damaged.
        """
        checksum = self.schema.candidates_checksum
        return self.active if checksum is None else self._read_mask(self.layout.candidates, checksum)

    def _read_mask(self, folder: Location, expected: int) -> np.ndarray:
        mask = read_array(folder, (self.index.total,), np.dtype(bool), ("parameter",))
        checksum = google_crc32c.value(mask.view(np.uint8))
        if checksum != expected:
            raise damaged(folder, expected=f"CRC32C {expected:08x}", found=f"{checksum:08x}")
        mask.flags.writeable = False
        return mask

    @cached_property
    def column_index(self) -> np.ndarray:
        """(P_active,) int64, each column's position in the parameter index."""
        return np.flatnonzero(self.active)

    def describe_column(self, column: int) -> str:
        """The parameter element of a column, such as ``fc1.weight[3, 17]``."""
        name, element = self.index.locate(int(self.column_index[column]))
        return f"{name}{list(element)}"

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return self.schema.codec.name

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the recording: equal digests mean equal metadata, shards and scalars."""
        files = [[commit.rows, *commit.file.to_json().values()] for commit in self._log.commits]
        untrained = [self.untrained] if self.untrained else []
        digest = hashlib.sha256(canonical_bytes([self.schema.to_json(), self.index.to_json(), files, *untrained]))
        digest.update(self.steps.to_matrix().tobytes())
        return digest.hexdigest()

    @property
    def digests(self) -> frozenset[str]:
        """The digest, and those of before the recording was stored with another codec: the same one, laid out anew."""
        return frozenset({self.digest, *self.info.earlier_digests})

    @property
    def first_digest(self) -> str:
        """The digest with which it was recorded."""
        return next(iter(self.info.earlier_digests), self.digest)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of the parameters that no recorded step trained; their columns are 0, which says nothing about them.

        They were frozen, not given to the optimizer, or never got a gradient. Recordings of format version 1 don't say;
        here it is empty.
        """
        return self._log.untrained

    @cached_property
    def kept(self) -> np.ndarray:
        """(P,) bool, which parameters aren't pruned, as far as is known: what could be recorded, and the left out."""
        kept = self.candidates.copy()
        for entry in self.index:
            if entry.name in self.info.left_out:
                kept[entry.offset : entry.stop] = True
        return kept

    @property
    def coverage(self) -> str:
        """What share of the weights has columns, in a line; empty where all do that aren't pruned or left out."""
        sample = self.info.sample
        if sample is None:
            return ""
        total = np.count_nonzero(self.candidates)
        drawn = f"drawn with seed {sample.seed}"
        return f"{self.num_columns:,} of {total:,} weights, {100 * sample.share:g}% of each layer, {drawn}"

    @property
    def mask_bytes(self) -> int:
        """Stored bytes of what says which parameters have columns."""
        folders = [self.layout.active] + ([] if self.info.sample is None else [self.layout.candidates])
        return sum(sum(folder.sizes().values()) for folder in folders)

    def has_columns_of(self, mask: np.ndarray) -> bool:
        """Whether a mask (P,) is the one that the recording was made with, as far as its columns tell."""
        differs = self.candidates != mask
        for entry in self.index:
            if entry.name in self.info.left_out:
                differs[entry.offset : entry.stop] = False
        return not differs.any()

    @property
    def noted(self) -> dict[str, Any]:
        """What the recorder noted about the recording as a whole, JSON-ready.

        ``vanished`` has, for some of the rows (the key), in how many columns Δθ was exactly 0 although the gradient
        wasn't, and in how many the gradient wasn't 0. ``precision`` is ``float32`` where the losses of held steps have
        no more than that, and left out otherwise.
        """
        return self._log.noted

    @property
    def precision(self) -> str:
        """That of the losses of held steps, ``float64`` or ``float32``."""
        return str(self.noted.get("precision", "float64"))

    @property
    def vanished_share(self) -> float | None:
        """Share of the changes that were lost in the rounding of the weights, in the rows that were counted.

        None if no row was counted: recordings of format version 1, held ones, and those with a stride.
        """
        return vanished_share(self.noted)

    @property
    def no_causal_reading(self) -> str:
        """A line that says why γ isn't a cause here: another optimizer than SGD made the steps; empty otherwise."""
        return self.info.update_rule.no_causal_reading(f"recording {self.path}")

    @property
    def end_weights(self) -> str:
        """Hash of the weights after the last row; empty where the writer didn't know it or wasn't closed."""
        return self._log.commits[-1].weights if self._log.commits else ""

    @property
    def known_weights(self) -> frozenset[str]:
        """Hashes of the weights with which the recording, or a part of a merged one, started and ended."""
        return frozenset({self.info.start_weights, self.end_weights, *self.info.of_parts("weights")} - {""})

    @property
    def known_checkpoints(self) -> frozenset[str]:
        """Hashes of the checkpoint files from which the recording, or a part of a merged one, started."""
        return frozenset({self.info.start_sha256, *self.info.of_parts("checkpoints")} - {""})

    def foreign(self, weights: Collection[str], files: Collection[str] = ()) -> str:
        """Why a network isn't known to be one that this recording started from or ended with, or made from one.

        Args:
            weights: Hashes, by ``ParameterIndex.digest``, of its weights and of those that it was made from.
            files: Hashes of its checkpoint, and of those that it was made from.

        Returns:
            In words what is found instead; ``unknown`` if the recording doesn't say which weights it was made with;
            empty if there is proof.
        """
        if not self.known_weights and not self.known_checkpoints:
            return "unknown"
        if self.known_weights.intersection(weights) or self.known_checkpoints.intersection(files):
            return ""
        if self.finished or self.end_weights:
            return "others"
        return "others (what an unfinished recording ended with isn't known)"

    @cached_property
    def steps(self) -> Steps:
        """The scalars of each row.

        Raises:
            CorruptError: The commit log has others than a recording's.
        """
        return (stored_steps(self.layout, self._log) if self._quick else None) or self._log.steps()

    @cached_property
    def learning_rates(self) -> LearningRates:
        """η of each row and column; ``steps.lr`` is the same where the optimizer has one parameter group."""
        if not self.info.groups:
            return LearningRates.same(self.steps.lr)
        counts = [np.count_nonzero(self.active[entry.offset : entry.stop]) for entry in self.index]
        names = np.repeat([entry.name for entry in self.index], counts)
        return LearningRates.of_groups(self.info.groups, self.steps.declared, names)

    @property
    def loss_change(self) -> np.ndarray:
        """ΔL_t = loss after − loss before, (T,) float64."""
        return self.steps.loss_change

    @property
    def target(self) -> np.ndarray:
        """(T,) float64, what a fit explains: ΔL_t; of held steps, whose first-order part is known, only the rest."""
        return self.steps.second_order_change if self.info.held else self.loss_change

    @property
    def rates_in_gamma(self) -> LearningRates:
        """η of γ = −1/η + h/2: the learning rates; infinite for held steps, see :attr:`target`."""
        return LearningRates.same(np.full(self.num_rows, np.inf)) if self.info.held else self.learning_rates

    @property
    def block_width(self) -> int:
        """C, the width of a chunk: column blocks whose width is a multiple of it decode nothing twice."""
        return self.schema.shape.width

    @property
    def block_rows(self) -> int:
        """B, the rows of a shard: row blocks whose height is a multiple of it decode nothing twice."""
        return self.schema.shape.rows

    @property
    def stored_bytes(self) -> int:
        """Bytes of the shards."""
        return sum(commit.file.size for commit in self._log.commits)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the rows as float32."""
        return 4 * self.num_rows * self.num_columns

    @property
    def bytes_read(self) -> int:
        """Stored bytes that this reader has read so far."""
        return self._shards.bytes_read

    @property
    def seconds(self) -> tuple[float, float]:
        """Time that all threads together took to read, and to decode (with the kernel), so far."""
        return self._shards.read_seconds, self._shards.decode_seconds

    @property
    def path(self) -> Location:
        """The recording's folder."""
        return self.layout.root

    def read(
        self, rows: slice, columns: slice, out: np.ndarray | None = None, kernel: Kernel | None = None
    ) -> np.ndarray:
        """Read a rectangle of the signed Δθ.

        Args:
            rows: Start and stop.
            columns: Start and stop.
            out: (rows, columns) float32 to read into; allocated by default.
            kernel: ``kernel(values, out)`` computes each part of ``out`` from its values, such as
                ``lambda values, out: np.multiply(values, values, out=out)``; may be called in several threads.

        Returns:
            ``out``.

        Raises:
            CorruptError: A shard is missing or damaged.
            DataError: A value is NaN or infinite.
            MismatchError: The rows were recorded anew since this reader was opened.
        """
        for axis, part, total in (("rows", rows, self.num_rows), ("columns", columns, self.num_columns)):
            if not 0 <= part.start <= part.stop <= total:
                raise IndexError(f"{axis} {part.start} to {part.stop} of {total}")
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise ValueError(f"out is {out.dtype} {out.shape}, not float32 {shape}")
        self._shards.read(rows, columns, out, kernel)
        return out

    def read_columns(
        self, start: int, stop: int, out: np.ndarray | None = None, kernel: Kernel | None = None
    ) -> np.ndarray:
        """Read all rows of columns ``start`` to ``stop``, (T, stop − start) float32; see :meth:`read`."""
        return self.read(slice(0, self.num_rows), slice(start, stop), out, kernel)

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read all columns of rows ``start`` to ``stop``, (stop − start, P_active) float32; see :meth:`read`."""
        return self.read(slice(start, stop), slice(0, self.num_columns), out)

    def columns_of(self, name: str) -> slice:
        """The columns of one parameter, such as ``"fc1.weight"``.

        Raises:
            UsageError: The store has no such parameter.
        """
        names = [entry.name for entry in self.index]
        if name not in names:
            expected = nearest(name, names) or ", ".join(names[:4])
            raise UsageError("parameter", expected=f"one of {expected}"[:200], found=repr(name)[:80])
        entry = self.index[name]
        start, stop = np.searchsorted(self.column_index, [entry.offset, entry.stop])
        return slice(int(start), int(stop))

    def column_blocks(
        self, width: int | None = None, prefetch: int = 2, columns: np.ndarray | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Iterate over blocks of columns, decoded ahead in threads.

        Memory: at most ``prefetch + 1`` blocks of 4·T·width bytes, two chunks per thread, and what the caller keeps.

        Args:
            width: Columns per block; by default those of a chunk.
            prefetch: Blocks decoded ahead, each in its own thread; 0 decodes in the calling thread.
            columns: Only these columns, sorted and distinct; blocks without any of them are not read.

        Yields:
            (first column, (T, ≤ width) float32 signed Δθ). With ``columns``, the position of the block's first column
            in ``columns``, and only those columns of the block.
        """
        width = width or self.block_width
        pool = BufferPool(prefetch + 1)
        starts = range(0, self.num_columns, width)
        tasks: Iterator[Callable[[], tuple[int, np.ndarray]]]
        if columns is None:
            tasks = (partial(self._column_block, i, min(i + width, self.num_columns), pool) for i in starts)
        else:
            bounds = np.searchsorted(columns, [(i, i + width) for i in starts]).tolist()
            tasks = (partial(self._chosen_columns, columns, i, j, pool) for i, j in bounds if i < j)
        return prefetched(tasks, prefetch)

    def _column_block(self, start: int, stop: int, pool: BufferPool) -> tuple[int, np.ndarray]:
        return start, self.read_columns(start, stop, pool.take(self.num_rows, stop - start))

    def _chosen_columns(self, columns: np.ndarray, first: int, last: int, pool: BufferPool) -> tuple[int, np.ndarray]:
        chosen = columns[first:last]
        start, whole = self._column_block(int(chosen[0]), int(chosen[-1]) + 1, pool)
        return first, whole if len(chosen) == whole.shape[1] else whole[:, chosen - start]

    def row_blocks(self, height: int | None = None, prefetch: int = 2) -> Iterator[tuple[int, np.ndarray]]:
        """Iterate over blocks of rows, decoded ahead in threads.

        Memory: at most ``prefetch + 1`` blocks of ``height`` rows (of B rows if ``height`` isn't a multiple of B, plus
        one block of ``height`` rows), two chunks per thread, and what the caller keeps.

        Args:
            height: Rows per block; B by default.
            prefetch: Blocks decoded ahead, each in its own thread; 0 decodes in the calling thread.

        Yields:
            (first row, (≤ height, P_active) float32 signed Δθ).
        """
        height = height or self.block_rows
        aligned = height % self.block_rows == 0
        decoded = height if aligned else self.block_rows
        pool = BufferPool(prefetch + 1)
        tasks = (partial(self._row_block, start, decoded, pool) for start in range(0, self.num_rows, decoded))
        blocks = prefetched(tasks, prefetch)
        return blocks if aligned else recut(blocks, height, self.num_rows)

    def _row_block(self, start: int, height: int, pool: BufferPool) -> tuple[int, np.ndarray]:
        stop = min(start + height, self.num_rows)
        return start, self.read_rows(start, stop, pool.take(stop - start, self.num_columns))

    @property
    def fits(self) -> tuple[str, ...]:
        """Names of the fits of this recording."""
        return tuple(self.layout.fits.names())

    def is_all_of(self, fit: Fit) -> bool:
        """Whether a fit is of all rows that are there now.

        Early fits don't say what they are of: such a one is of the recording that it was read with.
        """
        unsaid = self.digest if fit.recording is None else fit.recording.digest
        return fit.attributes.get("inputs", {}).get("recording", unsaid) in self.digests

    def read_fit(self, name: str) -> Fit:
        """Read a fit; see :meth:`FitStore.read <causalprune.trajectory.array_groups.FitStore.read>`."""
        return replace(self._fits.read(name), recording=self)

    def read_layer_statistics(self) -> ArrayGroup | None:
        """What was measured of the layers at the weights with which the recording ended; None if nothing was.

        Raises:
            CorruptError: Its metadata are missing or damaged.
        """
        folder = self.layout.layer_statistics
        return ArrayGroup.read(folder, LAYER_STATISTICS) if folder.is_folder() else None

    @property
    def layer_statistics_bytes(self) -> int:
        """Stored bytes of these arrays; 0 if there are none."""
        group = self.layout.layer_statistics
        folders = [group / name for name in group.children() if name != METADATA] if group.is_folder() else []
        return sum(size for folder in folders for name, size in folder.sizes().items() if name != METADATA)

    def check_lengths(self) -> list[str]:
        """Compare the lengths of the shards with the commit log, which reads no shard.

        Returns:
            One line per shard that is missing or of another length.

        Raises:
            StorageError: Storage refused, so that nobody knows.
        """
        return shards_of_wrong_length(self.layout, self._log, self.read_log)

    def verify(self) -> list[str]:
        """Read everything and compare it with its checksums.

        Returns:
            One line per problem, naming the file; empty if there is none.

        Raises:
            StorageError: Storage refused, so that nobody knows.
        """
        return verify_recording(self)


def recut(blocks: Iterator[tuple[int, np.ndarray]], height: int, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Divide consecutive blocks of rows anew, at multiples of ``height``; a block within a single one is a view."""
    first, block = next(blocks, (0, np.empty((0, 0), np.float32)))
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        parts = []
        position = start
        while position < stop:
            if position >= first + len(block):
                first, block = next(blocks)
            part = block[position - first : stop - first]
            parts.append(part)
            position += len(part)
        yield start, parts[0] if len(parts) == 1 else np.concatenate(parts)
        del parts, part
