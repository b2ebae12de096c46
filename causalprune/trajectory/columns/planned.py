"""A recording that is still to be made, as far as one knows what it will be like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.reader import RecordingReader
from causalprune.trajectory.schema import BlockShape


@dataclass(frozen=True, eq=False)
class PlannedRecording:
    """As much of a recording as is known before it is made.

    Attributes:
        index: The prunable parameters.
        active: (P,) which of them it will have, at least one.
        num_rows: T, at least 1.
        block_width: Columns per chunk.
        momentum: That of its steps.
        held: Whether each step is taken back, and has a learning rate of its own.
    """

    index: ParameterIndex
    active: npt.NDArray[np.bool_]
    num_rows: int
    block_width: int
    momentum: float = 0.0
    held: bool = False

    @property
    def num_columns(self) -> int:
        """How many it will have."""
        return int(np.count_nonzero(self.active))

    @classmethod
    def of(
        cls,
        index: ParameterIndex,
        active: npt.NDArray[np.bool_],
        num_rows: int,
        *,
        momentum: float = 0.0,
        held: bool = False,
    ) -> Self:
        """A recording that is still to be made, in chunks as wide as they will be."""
        width = BlockShape.choose(int(np.count_nonzero(active)), num_rows).width
        return cls(index, active, num_rows, width, momentum, held)

    @classmethod
    def of_reader(cls, reader: RecordingReader) -> Self:
        """One that is there."""
        info = reader.info
        return cls(reader.index, reader.active, reader.num_rows, reader.block_width, info.momentum, info.held)
