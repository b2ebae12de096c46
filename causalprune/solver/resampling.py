"""Row weights: held-out steps, cross-validation over blocks of steps, bootstrap resamples of steps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from causalprune.columns import Float64
from causalprune.errors import UsageError
from causalprune.runtime import keyed_seed


def row_factor(weights: Float64) -> Float64:
    """√(w_t·T/Σw), which turns a regression on weighted rows into one on all of them; T and so α keep their meaning.

    Raises:
        UsageError: Weights that are negative, not finite, or all zero.
    """
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise UsageError("row weights", expected="finite numbers of at least 0, one of them above", found="others")
    return np.sqrt(weights * (len(weights) / weights.sum()))


def held_out_tail(num_rows: int, share: float) -> np.ndarray:
    """(T,) bool, True for the last steps; False throughout where less than two rows would be on either side."""
    count = round(share * num_rows)
    tail = np.zeros(num_rows, bool)
    if share > 0 and min(count, num_rows - count) >= 2:
        tail[num_rows - count :] = True
    return tail


def blocks_of_steps(num_rows: int, folds: int) -> list[np.ndarray]:
    """(T,) bool a fold, True for the rows it leaves out: consecutive steps, because neighbours are alike.

    Raises:
        UsageError: Fewer than two rows a fold.
    """
    if num_rows < 2 * folds:
        raise UsageError("--cv", expected=f"at most {num_rows // 2} folds of {num_rows} rows", found=f"{folds}")
    edges = np.linspace(0, num_rows, folds + 1).round().astype(int)
    masks = np.zeros((folds, num_rows), bool)
    for fold, (first, stop) in enumerate(pairwise(edges)):
        masks[fold, first:stop] = True
    return list(masks)


def bootstrap_counts(num_rows: int, seed: int, number: int) -> Float64:
    """(T,) how often each step is drawn in resample ``number``."""
    rng = np.random.default_rng(keyed_seed(seed, "bootstrap", number))
    return np.bincount(rng.integers(0, num_rows, num_rows), minlength=num_rows).astype(np.float64)
