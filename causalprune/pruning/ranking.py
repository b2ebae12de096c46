"""The lowest and the highest of many scores, in linear time and in a fixed order.

The order is total: by the keys, the most significant first, and among equals by position, the lower first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Keys = Sequence[npt.NDArray[np.floating]]
Rank = tuple[float, ...]
"""Rank of a parameter in the order: its keys, then its position."""


def rank(keys: Keys, position: int) -> Rank:
    """The rank of the parameter at ``position``; ranks compare in the order."""
    return (*(float(key[position]) for key in keys), position)


def lowest(keys: Keys, candidates: npt.NDArray[np.bool_], count: int) -> tuple[npt.NDArray[np.bool_], Rank]:
    """Choose the ``count`` lowest of the candidates.

    Args:
        keys: Vectors (P,) to order by; finite where ``candidates`` is True.
        candidates: (P,) bool.
        count: From 1 to the number of candidates.

    Returns:
        The chosen candidates, (P,) bool, and the rank of the highest of them.
    """
    chosen = np.zeros(len(candidates), dtype=bool)
    pool, missing = candidates, count
    for key in keys:
        # Everything below the threshold is chosen; the next key decides among those equal to it.
        threshold = np.partition(key[pool], missing - 1)[missing - 1]
        below = pool & (key < threshold)
        chosen |= below
        missing -= int(np.count_nonzero(below))
        pool = pool & (key == threshold)
    first = np.flatnonzero(pool)[:missing]
    chosen[first] = True
    return chosen, rank(keys, int(first[-1]))


def highest(keys: Keys, candidates: npt.NDArray[np.bool_]) -> int:
    """Position of the highest candidate; there must be at least one."""
    pool = np.flatnonzero(candidates)
    for key in keys:
        values = key[pool]
        pool = pool[values == values.max()]
    return int(pool[-1])
