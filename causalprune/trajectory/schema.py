"""What a recording says about itself."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from causalprune.base.errors import CorruptError, UsageError
from causalprune.trajectory.blocks import MAX_ROWS, BlockShape
from causalprune.trajectory.codec import Codec, find_codec
from causalprune.trajectory.names import CODECS
from causalprune.trajectory.update_rule import STEP_EXTRAS, UpdateRule

LossChange = Literal["same-batch", "next-batch"]


@dataclass(frozen=True)
class RecordingInfo:
    """How a recording was made.

    Attributes:
        optimizer: Name of the optimizer, ``"sgd"``.
        lr: Nominal learning rate; the recorded steps have their own.
        momentum: μ in [0, 1).
        loss_change: Whether ΔL is that of the same minibatch before and after the step, or that of the next minibatch.
        stride: Optimizer updates in a row, ≥ 1.
        batch_size: Samples in a minibatch, ≥ 1.
        seed: Seed of the recording.
        start_sha256: Hash of the checkpoint from which it started; empty where there is none.
        identity: Hash of the configuration that made it; an interrupted recording is continued only by
            the same. Empty where nobody asks.
        extra: Anything else, JSON-ready, such as the optimizer's settings of
            :data:`causalprune.trajectory.update_rule.STEP_EXTRAS`.
    """

    lr: float
    batch_size: int
    seed: int
    start_sha256: str = ""
    identity: str = ""
    optimizer: str = "sgd"
    momentum: float = 0.0
    loss_change: LossChange = "same-batch"
    stride: int = 1
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check("lr", self.lr, "a finite number above 0", math.isfinite(self.lr) and self.lr > 0)
        self._check("momentum", self.momentum, "a number in [0, 1)", 0 <= self.momentum < 1)
        self._check("stride", self.stride, "at least 1", self.stride >= 1)
        self._check("batch size", self.batch_size, "at least 1", self.batch_size >= 1)
        changes = get_args(LossChange)
        self._check("loss change", self.loss_change, " or ".join(changes), self.loss_change in changes)

    @property
    def update_rule(self) -> UpdateRule:
        """What the rows mean."""
        own = {name: self.extra[name] for name in STEP_EXTRAS if name in self.extra}
        return UpdateRule(
            optimizer=self.optimizer, momentum=self.momentum, stride=self.stride, loss_change=self.loss_change, **own
        )

    @staticmethod
    def _check(name: str, value: object, expected: str, valid: bool) -> None:
        if not valid:
            raise UsageError(f"recording's {name}", expected=expected, found=repr(value)[:80])

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back."""
        return asdict(self)

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
        }
        try:
            if set(value) != {f.name for f in fields(cls)}:
                raise ValueError(f"fields {sorted(value)}")
            for name, item in value.items():
                if isinstance(item, bool) or not isinstance(item, kinds.get(name, dict if name == "extra" else str)):
                    raise ValueError(f"{name} {item!r}")
            return cls(**value)
        except (TypeError, ValueError, UsageError) as error:
            raise CorruptError(source, expected="how the recording was made", found=str(error)[:160]) from error


@dataclass(frozen=True)
class RecordingSchema:
    """Everything about a recording that is fixed when it begins: the content of its group's attributes.

    Attributes:
        info: How it was made.
        shape: How it is cut into shards and chunks.
        max_rows: Rows it may have.
        codec: How deltas are stored.
        active_checksum: CRC32C of the (P,) bool mask's bytes, a byte a parameter.
    """

    info: RecordingInfo
    shape: BlockShape
    max_rows: int
    codec: Codec
    active_checksum: int

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
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], source: str) -> RecordingSchema:
        """Read what :meth:`to_json` wrote.

        Raises:
            CorruptError: The value, which comes from ``source``, isn't such a dictionary, or declares absurd sizes.
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
        return cls(info, shape, max_rows, find_codec(str(codec)), active_checksum)
