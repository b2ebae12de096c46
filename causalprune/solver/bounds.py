"""What is known of the columns that aren't in memory: upper bounds of their correlations with a new residual.

Of every column outside the pool an upper bound of its correlation is kept, block by block: the largest that was seen
with the residual z of an earlier solution. With another residual z' it is, for any β ≥ 0, at most

    |x̃ᵀz'| ≤ β·|x̃ᵀz| + ‖x̃‖·‖z' − βz‖,

so blocks need not be read again to certify a new solution that is near (the sphere test of El Ghaoui, Viallon and
Rabbani, 2012, with the best of several centres).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.columns import Float32, Float64


@dataclass(frozen=True, eq=False)
class Reference:
    """The vectors that blocks are correlated with between two solutions.

    Attributes:
        vectors: (T, K) residuals z, each divided by its bound Tλ₁: a correlation is the share of the bound it reaches.
            In the first pass the first is ŷ (w∘ŷ with row weights), not divided.
        norms: (K,) lengths of the vectors.
        units: (K,) what they were divided by.
        owner: (K,) number of the task of each; −1 for ŷ.
        narrow: (K, T) the vectors as float32.
        ranking: Which of them ranks the columns, or None.
    """

    vectors: Float64
    norms: Float64
    units: Float64
    owner: npt.NDArray[np.int64]
    narrow: Float32
    ranking: int | None


@dataclass(eq=False)
class Piece:
    """The part of a block that belongs to the region.

    Attributes:
        start: Its first column, counted from the region's.
        stop: Column behind the last.
        reference: What it was last correlated with; None before the first time.
        peak: (K,) upper bounds of its columns' correlations with it, those in the pool left out.
        ranked: (T,) what ``rank`` of its columns was computed with; None if it wasn't.
    """

    start: int
    stop: int
    reference: Reference | None = None
    peak: Float64 | None = None
    ranked: Float64 | None = None


def upper_limits(
    pieces: Mapping[int, Piece], largest_norms: Mapping[int, float], owner: int, vector: Float64
) -> dict[int, float]:
    """Upper bounds of |x̃_jᵀz'| over the columns outside the pool, by block number.

    Args:
        pieces: By block number.
        largest_norms: Of each piece with columns outside the pool, the largest ‖x̃_j‖ among these.
        owner: Number of the task that z' belongs to.
        vector: (T,) z'.
    """
    length = float(np.linalg.norm(vector))
    limits = {}
    centres: dict[int, tuple[npt.NDArray[np.int64], Float64, Float64]] = {}
    for number, norm in largest_norms.items():
        piece = pieces[number]
        limit = norm * length
        if piece.reference is not None and piece.peak is not None:
            key = id(piece.reference)
            if key not in centres:
                centres[key] = _centres(piece.reference, owner, vector)
            places, share, distance = centres[key]
            if len(places):
                limit = min(limit, float((share * piece.peak[places] + norm * distance).min()))
        limits[number] = limit * (1 + 1e-12)
    return limits


def _centres(reference: Reference, owner: int, vector: Float64) -> tuple[npt.NDArray[np.int64], Float64, Float64]:
    """Which vectors of a reference bound another one's correlations, each with its best β and ‖z' − βz‖."""
    places = np.flatnonzero((reference.owner == owner) | (reference.owner < 0))
    places = places[reference.norms[places] > 0]
    z = reference.vectors[:, places]
    share = np.maximum(vector @ z, 0.0) / reference.norms[places] ** 2
    return places, share, np.linalg.norm(vector[:, None] - share * z, axis=0)
