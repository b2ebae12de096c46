"""A random share of the columns of each layer, the same for every reader and writer: drawn by a keyed hash."""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import UsageError
from causalprune.models.parameters import ParameterIndex

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ColumnSample:
    """Of each tensor's n weights that could be recorded, the round(share·n) with the lowest hashes, at least one.

    The hash of the weight at position i of the flat vector is number i + 1 of the SplitMix64 stream (Steele, Lea and
    Flood, OOPSLA 2014, doi:10.1145/2660193.2660195) that starts at the first eight bytes, little-endian, of the
    SHA-256 of ``causalprune columns SEED``. It depends on nothing else: not on minibatches, threads or processes. A
    smaller share is part of a larger one of the same seed.

    Attributes:
        share: In (0, 1).
        seed: At least 0; another one draws other columns.

    Raises:
        UsageError: A value out of range.
    """

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.share, Real) or not 0 < self.share < 1:
            raise UsageError("`columns`", expected="a share above 0 and below 1", found=f"{self.share}"[:80])
        try:
            seed = operator.index(self.seed)
        except TypeError:
            seed = -1
        if seed < 0:
            raise UsageError("`columns_seed`", expected="a whole number of at least 0", found=f"{self.seed}"[:80])
        # Numbers of NumPy's, too, are written as JSON and read again.
        object.__setattr__(self, "share", float(self.share))
        object.__setattr__(self, "seed", int(seed))

    @classmethod
    def from_json(cls, value: Any) -> ColumnSample:
        """Read what ``dataclasses.asdict`` made of it, or raise ``ValueError``."""
        known = isinstance(value, dict) and value.keys() == {"share", "seed"}
        if not known or type(value["share"]) is not float or type(value["seed"]) is not int:
            raise ValueError(f"a sample {value!r}"[:80])
        return cls(**value)

    def draw(self, index: ParameterIndex, candidates: Bools) -> Bools:
        """Choose the columns.

        Args:
            index: The parameters.
            candidates: (P,) bool, those that could be recorded: neither pruned nor left out.

        Returns:
            (P,) bool, those that are.
        """
        drawn = np.zeros(index.total, dtype=bool)
        for entry in index:
            positions = entry.offset + np.flatnonzero(candidates[entry.offset : entry.stop])
            if len(positions):
                count = max(1, round(self.share * len(positions)))
                # No two hashes are equal, so nothing depends on how the lowest are found.
                drawn[positions[np.argpartition(self._hashes(positions), count - 1)[:count]]] = True
        return drawn

    def _hashes(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        start = int.from_bytes(hashlib.sha256(f"causalprune columns {self.seed}".encode()).digest()[:8], "little")
        # Modulo 2⁶⁴ throughout, which arrays do without a warning.
        z = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashes: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
        return hashes


def drawn_columns(sample: ColumnSample | None, index: ParameterIndex, candidates: Bools) -> Bools:
    """(P,) bool, what has a column: all candidates, or the sample of them."""
    return candidates if sample is None else sample.draw(index, candidates)
