"""Which weights are recorded, and by which process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.models.mask import Mask
from causalprune.training.ranks import Ranks, Writer
from causalprune.trajectory import RecordingWriter
from causalprune.trajectory.columns.parts import own_columns
from causalprune.trajectory.columns.sample import ColumnSample, drawn_columns
from causalprune.trajectory.schema import EXPECTED_ROWS, BlockShape


@dataclass(frozen=True, eq=False)
class Columns:
    """Which weights a recording has, and which of them this process writes.

    Attributes:
        left_out: Names of the parameters that aren't recorded.
        sample: The share of the others that is; None for all.
        candidates: (P,) bool, what is neither pruned nor left out.
        active: (P,) bool, what has a column.
        own: The columns that this process writes, where each writes its own; None where one writes all.
    """

    left_out: tuple[str, ...]
    sample: ColumnSample | None
    candidates: npt.NDArray[np.bool_]
    active: npt.NDArray[np.bool_]
    own: slice | None = None

    @classmethod
    def of(
        cls,
        mask: Mask,
        columns: str | float | Sequence[str | float],
        seed: int,
        store: str | Path | StoreUrl | Writer,
    ) -> Columns:
        """Read what was asked for; where nothing was, of a recording that is given, as it says.

        Args:
            mask: What is pruned.
            columns: Patterns of names, a share, or both; empty for everything.
            seed: Of the share.
            store: Where the recording will be, or is.

        Raises:
            UsageError: A pattern that matches nothing, or a share out of range; others than those of a recording that
                goes on.
        """
        index = mask.index
        given = _listed(columns)
        shares = [share for share in given if not isinstance(share, str)]
        patterns = [pattern for pattern in given if isinstance(pattern, str)]
        if len(shares) > 1 or any(isinstance(share, bool) or not isinstance(share, Real) for share in shares):
            raise UsageError("`columns`", expected="patterns of names, and at most one share", found=f"{given}"[:80])
        if isinstance(store, RecordingWriter) and not given:
            left_out, sample = store.info.left_out, store.info.sample
        else:
            chosen = {name for pattern in patterns for name in index.matching(pattern, "columns")}
            left_out = tuple(entry.name for entry in index if patterns and entry.name not in chosen)
            sample = ColumnSample(shares[0], seed) if shares and shares[0] != 1 else None
        keeps = mask.tensors().items()
        candidates = np.concatenate([keep.numpy().reshape(-1) & (name not in left_out) for name, keep in keeps])
        active = drawn_columns(sample, index, candidates)
        # The same number of others would be written under the names of these.
        if isinstance(store, RecordingWriter) and not np.array_equal(active, store.active):
            raise UsageError(
                "`columns` and `mask`",
                expected="those of the recording that goes on",
                found="others",
                remedy="pass the same ones, or leave `columns` out",
            )
        own = store.columns if isinstance(store, RecordingWriter) and store.shared else None
        return cls(left_out, sample, candidates, active, own=own)

    def divided(self, ranks: Ranks, max_rows: int) -> Columns:
        """The same, each process with columns of its own.

        Args:
            ranks: The processes; a single one writes all.
            max_rows: How many rows are expected; 0 if unknown.
        """
        if ranks.count == 1:
            return self
        shape = BlockShape.choose(max(1, self.count), int(max_rows) or EXPECTED_ROWS)
        return replace(self, own=own_columns(shape, ranks.rank, ranks.count))

    @property
    def count(self) -> int:
        """Number of columns."""
        return int(np.count_nonzero(self.active))


def _listed(columns: str | float | Sequence[str | float]) -> list[str | float]:
    """What was asked for, one by one."""
    if isinstance(columns, str):
        return [columns]
    try:
        return list(columns)  # type: ignore[arg-type]
    except TypeError:
        return [columns]  # type: ignore[list-item]
