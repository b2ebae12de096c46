"""The metadata of a recording: how it was made, and how it is divided into shards and chunks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import google_crc32c
import numpy as np

from causalprune.base.errors import CorruptError, DataError, UsageError
from causalprune.trajectory.codec import Codec, find_codec
from causalprune.trajectory.columns.sample import ColumnSample
from causalprune.trajectory.names import CODECS
from causalprune.trajectory.steps import STEP_EXTRAS, STEP_FIELDS, UpdateRule
from causalprune.trajectory.steps.learning_rates import ParameterGroup, group_scalars

LossChange = Literal["same-batch", "next-batch"]

HOLD_SHARE = "hold_share"
"""Where :attr:`RecordingInfo.extra` has :attr:`RecordingInfo.hold_share`."""

LABEL_SMOOTHING = "label_smoothing"
"""Where :attr:`RecordingInfo.extra` has :attr:`RecordingInfo.label_smoothing`."""

COMPACTED = "compacted"
"""Where :attr:`RecordingInfo.extra` has :attr:`RecordingInfo.earlier_digests`."""

_UNSAID = {"start_weights", "groups", "step_scalars", "left_out", "sample"}
"""What isn't written where it is empty: later additions, without which the bytes are those of before."""


@dataclass(frozen=True)
class RecordingInfo:
    """How a recording was made.

    Attributes:
        optimizer: Name of the optimizer, ``"sgd"``.
        lr: Nominal learning rate; each recorded step has its own. Without a meaning where weights were held.
        momentum: μ in [0, 1).
        loss_change: Whether ΔL is measured on the minibatch of the step, or on the next one.
        stride: Optimizer updates per row, ≥ 1.
        batch_size: Samples per minibatch, ≥ 1.
        seed: Seed of the recording.
        start_sha256: Hash of the checkpoint from which it started; empty if there is none.
        start_weights: Hash of the weights with which it started, by ``ParameterIndex.digest``; empty if unknown, as in
            recordings of format version 1.
        identity: Hash of the configuration that made it; only the same one continues an interrupted recording. Empty
            if it doesn't matter.
        extra: Anything else, JSON-ready, such as the optimizer's settings of
            :data:`causalprune.trajectory.steps.STEP_EXTRAS`.
        groups: The optimizer's parameter groups, if there are several. Then ``lr`` is that of the first one with
            recorded parameters, and ``momentum`` and ``extra`` say what at least one of these has.
        step_scalars: Names of the scalars that rows have besides :data:`causalprune.trajectory.steps.STEP_FIELDS`.
        left_out: Names of parameters that have no columns although they aren't pruned.
        sample: The share of the other parameters that has columns; None for all of them.
    """

    lr: float
    batch_size: int
    seed: int
    start_sha256: str = ""
    start_weights: str = ""
    identity: str = ""
    optimizer: str = "sgd"
    momentum: float = 0.0
    loss_change: LossChange = "same-batch"
    stride: int = 1
    extra: dict[str, Any] = field(default_factory=dict)
    groups: tuple[ParameterGroup, ...] = ()
    step_scalars: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    sample: ColumnSample | None = None

    def __post_init__(self) -> None:
        self._check("lr", self.lr, "a finite number above 0", math.isfinite(self.lr) and self.lr > 0)
        self._check("momentum", self.momentum, "a number in [0, 1)", 0 <= self.momentum < 1)
        self._check("stride", self.stride, "at least 1", self.stride >= 1)
        self._check("batch size", self.batch_size, "at least 1", self.batch_size >= 1)
        changes = get_args(LossChange)
        self._check("loss change", self.loss_change, " or ".join(changes), self.loss_change in changes)
        names = {*STEP_FIELDS, *self.step_scalars}
        distinct = len(names) == len(STEP_FIELDS) + len(self.step_scalars)
        self._check("step scalars", self.step_scalars, "distinct new names", distinct)
        of_groups = {name for number in range(len(self.groups)) for name in group_scalars(number)}
        self._check("step scalars", self.step_scalars, "those of each parameter group", of_groups <= names)

    @property
    def format_version(self) -> int:
        """The oldest version of the format that can say all this: an earlier reader must not overlook it."""
        if self.sample is not None:
            return 5
        return 3 if self.groups or self.step_scalars or self.left_out else 2

    @property
    def update_rule(self) -> UpdateRule:
        """What the rows mean."""
        own = {name: self.extra[name] for name in STEP_EXTRAS if name in self.extra}
        return UpdateRule(
            optimizer=self.optimizer, momentum=self.momentum, stride=self.stride, loss_change=self.loss_change, **own
        )

    @property
    def hold_share(self) -> float:
        """η_t‖g_t‖² as a share of the loss, where every step was tried at the same point; 0 where the weights moved."""
        return float(self.extra.get(HOLD_SHARE, 0.0))

    @property
    def held(self) -> bool:
        """Whether every step was tried at the same point, and taken back."""
        return HOLD_SHARE in self.extra

    @property
    def label_smoothing(self) -> float:
        """That of the loss whose change was recorded."""
        return float(self.extra.get(LABEL_SMOOTHING, 0.0))

    @property
    def earlier_digests(self) -> tuple[str, ...]:
        """Digests that the recording had before it was stored with another codec, each time."""
        found = self.extra.get(COMPACTED, [])
        return tuple(d for d in found if isinstance(d, str)) if isinstance(found, list) else ()

    @staticmethod
    def _check(name: str, value: object, expected: str, valid: bool) -> None:
        if not valid:
            raise UsageError(f"recording's {name}", expected=expected, found=repr(value)[:80])

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back."""
        said = {k: v for k, v in asdict(self).items() if v or k not in _UNSAID}
        lists = {name: list(getattr(self, name)) for name in ("step_scalars", "left_out") if name in said}
        return said | lists | ({"groups": [group.to_json() for group in self.groups]} if self.groups else {})

    def of_parts(self, kind: str) -> set[str]:
        """The hashes that a merged recording has of its parts.

        Args:
            kind: ``weights`` at their start and end, or ``checkpoints`` from which they started.
        """
        parts = self.extra.get("merged", [])
        lists = [p.get(kind) for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []
        return {h for hashes in lists if isinstance(hashes, list) for h in hashes if isinstance(h, str)}

    @classmethod
    def from_json(cls, value: Any, source: str) -> RecordingInfo:
        """Read what :meth:`to_json` wrote.

        Raises:
            CorruptError: The value, which comes from ``source``, isn't such a dictionary.
        """
        kinds: dict[str, Any] = {
            "lr": (int, float),
            "momentum": (int, float),
            "stride": int,
            "batch_size": int,
            "seed": int,
            "extra": dict,
            "sample": dict,
            **dict.fromkeys(("groups", "step_scalars", "left_out"), list),
        }
        try:
            if {*_UNSAID, *value} != {f.name for f in fields(cls)}:
                raise ValueError(f"fields {sorted(value)}")
            for name, item in value.items():
                if isinstance(item, bool) or not isinstance(item, kinds.get(name, str)):
                    raise ValueError(f"{name} {item!r}")
            names = {name: tuple(map(str, value.get(name, []))) for name in ("step_scalars", "left_out")}
            groups = tuple(map(ParameterGroup.from_json, value.get("groups", [])))
            sample = ColumnSample.from_json(value["sample"]) if "sample" in value else None
            return cls(**{**value, **names, "groups": groups, "sample": sample})
        except (TypeError, ValueError, UsageError) as error:
            raise CorruptError(source, expected="how the recording was made", found=str(error)[:160]) from error


@dataclass(frozen=True)
class RecordingSchema:
    """Everything about a recording that is fixed when it begins: its group's attributes.

    Attributes:
        info: How it was made.
        shape: How it is divided into shards and chunks.
        max_rows: Number of rows that were expected; there may be more.
        codec: How deltas are stored.
        active_checksum: CRC32C of the (P,) bool mask's bytes, one byte per parameter.
        candidates_checksum: That of the parameters of which a sample has columns; None without a sample.
    """

    info: RecordingInfo
    shape: BlockShape
    max_rows: int
    codec: Codec
    active_checksum: int
    candidates_checksum: int | None = None

    @property
    def format_version(self) -> int:
        """The oldest version of the format that can say all this."""
        return max(self.info.format_version, self.codec.format_version)

    @classmethod
    def choose(
        cls,
        info: RecordingInfo,
        active: np.ndarray,
        max_rows: int,
        codec: str,
        block_rows: int | None,
        source: str,
        candidates: np.ndarray | None = None,
    ) -> RecordingSchema:
        """The schema of a new recording.

        Args:
            info: How it is made.
            active: (P,) bool, C-contiguous, the parameters to record.
            max_rows: Number of rows that are expected.
            codec: Name of the codec.
            block_rows: Rows per shard; see :meth:`BlockShape.choose`.
            source: The store, for the error message.
            candidates: (P,) bool, C-contiguous, the parameters of which the active ones are a sample; None without one.

        Raises:
            DataError: No active parameter.
            UsageError: An unknown codec, or a size out of range.
        """
        columns = int(np.count_nonzero(active))
        if columns == 0:
            expected, found = "a parameter to record", "all of them pruned"
            raise DataError(source, expected=expected, found=found, remedy="use a sparser target")
        if not 1 <= max_rows <= MAX_ROWS:
            raise UsageError("rows to record", expected=f"1 to {MAX_ROWS}", found=f"{max_rows}")
        shape = BlockShape.choose(columns, max_rows, block_rows)
        checksum = None if candidates is None else google_crc32c.value(candidates.view(np.uint8))
        return cls(info, shape, max_rows, find_codec(codec), google_crc32c.value(active.view(np.uint8)), checksum)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back."""
        return {
            "info": self.info.to_json(),
            "columns": self.shape.columns,
            "block_rows": self.shape.rows,
            "chunk_width": self.shape.width,
            "max_rows": self.max_rows,
            "codec": self.codec.name,
            "active_crc32c": f"{self.active_checksum:08x}",
        } | ({} if self.candidates_checksum is None else {"candidates_crc32c": f"{self.candidates_checksum:08x}"})

    @classmethod
    def from_json(cls, value: dict[str, Any], source: str) -> RecordingSchema:
        """Read what :meth:`to_json` wrote, with the ``format_version`` beside it.

        Raises:
            CorruptError: The value, which comes from ``source``, isn't such a dictionary, or has absurd sizes.
        """
        shape = BlockShape.from_json(value.get("columns"), value.get("block_rows"), value.get("chunk_width"), source)
        max_rows, codec, active = value.get("max_rows"), value.get("codec"), value.get("active_crc32c")
        if type(max_rows) is not int or not 1 <= max_rows <= MAX_ROWS:
            raise CorruptError(source, expected=f"1 to {MAX_ROWS} rows", found=repr(max_rows)[:80])
        if codec not in CODECS:
            raise CorruptError(
                source, expected=f"a codec of {list(CODECS)}", found=repr(codec)[:80], remedy="update causalprune"
            )
        try:
            active_checksum = int(str(active), 16)
        except (TypeError, ValueError) as error:
            raise CorruptError(source, expected="a checksum of the mask", found=repr(active)[:80]) from error
        info = RecordingInfo.from_json(value.get("info"), source)
        candidates = None
        if info.sample is not None:
            found = value.get("candidates_crc32c")
            try:
                candidates = int(str(found), 16)
            except ValueError as error:
                raise CorruptError(source, expected="a checksum of the sample", found=repr(found)[:80]) from error
        stored = find_codec(str(codec), value["format_version"])
        return cls(info, shape, max_rows, stored, active_checksum, candidates)


BLOCK_BYTES = 256 * 2**20
"""Memory of one block of rows, the content of a shard before it is encoded."""

MAX_BLOCK_ROWS = 4096
MAX_CHUNK_BYTES = 2**28
"""A chunk with more bytes isn't ours; checked before anything is allocated."""

MAX_ROWS = 2**40

EXPECTED_ROWS = 64
"""Where nobody knows how many rows there will be: a whole block of the most rows."""


@dataclass(frozen=True)
class BlockShape:
    """How a recording is divided into shards and chunks.

    Attributes:
        columns: P_active, the number of columns.
        rows: B, the rows per block; each block is one shard.
        width: C, the columns per chunk.
    """

    columns: int
    rows: int
    width: int

    @classmethod
    def choose(cls, columns: int, max_rows: int, block_rows: int | None = None) -> BlockShape:
        """Choose the shape for a recording of about ``max_rows`` rows.

        B is the largest power of two with B ≤ 64 and 4·B·P_active ≤ :data:`BLOCK_BYTES`, at least 1, and no larger
        than the smallest power of two ≥ ``max_rows``. C is 8192 if B > 32, 16384 if B ≥ 16,
        else 65536, and at most P_active: a decoded chunk of a tall block fits into a core's second-level cache.

        Args:
            columns: P_active ≥ 1.
            max_rows: Number of rows that are expected, ≥ 1.
            block_rows: B, to override the rule.

        Raises:
            UsageError: ``block_rows`` is out of range.
        """
        if block_rows is None:
            fitting = min(64, max(1, BLOCK_BYTES // (4 * columns)))
            block_rows = min(1 << (fitting.bit_length() - 1), 1 << (max_rows - 1).bit_length())
        elif not 1 <= block_rows <= MAX_BLOCK_ROWS:
            raise UsageError("block rows", expected=f"1 to {MAX_BLOCK_ROWS}", found=f"{block_rows}")
        width = 8192 if block_rows > 32 else 16384 if block_rows >= 16 else 65536
        return cls(columns, block_rows, min(width, columns))

    @classmethod
    def from_json(cls, columns: object, rows: object, width: object, source: str) -> BlockShape:
        """Check numbers that were read from ``source``.

        Raises:
            CorruptError: They can't be the shape of a recording.
        """
        if type(columns) is int and type(rows) is int and type(width) is int:
            shape = cls(columns, rows, width)
            if 1 <= width <= columns and 1 <= rows <= MAX_BLOCK_ROWS and shape.chunk_bytes <= MAX_CHUNK_BYTES:
                return shape
        raise CorruptError(
            source,
            expected=f"columns ≥ chunk width ≥ 1, 1 to {MAX_BLOCK_ROWS} block rows, chunks ≤ {MAX_CHUNK_BYTES} bytes",
            found=f"{columns}, {width}, {rows}"[:120],
        )

    @property
    def chunks(self) -> int:
        """Chunks in a shard."""
        return -(-self.columns // self.width)

    @property
    def padded_columns(self) -> int:
        """Columns of a shard, whose last chunk is padded to full width."""
        return self.chunks * self.width

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return 4 * self.rows * self.width

    @property
    def block_bytes(self) -> int:
        """Bytes of a decoded block of rows, without padding."""
        return 4 * self.rows * self.columns

    def shards(self, rows: int) -> int:
        """Number of shards for ``rows`` rows."""
        return -(-rows // self.rows)
