"""How alike the weights are that two criteria keep."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def jaccard(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """|A ∩ B| / |A ∪ B| of two sets of kept weights; 1 where both are empty.

    Two sets that each hold a share k of all weights by chance have k/(2 − k).
    """
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0


def mean_jaccard(masks: list[list[npt.NDArray[np.bool_]]]) -> npt.NDArray[np.float64]:
    """The Jaccard index of every pair of criteria, averaged over the seeds.

    Args:
        masks: (C criteria, S seeds) masks; the same seeds for each.

    Returns:
        (C, C), symmetric, with ones on the diagonal.
    """
    total = np.eye(len(masks))
    for i, first in enumerate(masks):
        for j, second in enumerate(masks[:i]):
            total[i, j] = total[j, i] = np.mean([jaccard(a, b) for a, b in zip(first, second, strict=True)])
    return total
