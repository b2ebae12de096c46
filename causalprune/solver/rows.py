"""The rows of an exact fit: their target, their weights, and which of them side fits leave out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import UsageError
from causalprune.base.runtime import keyed_seed
from causalprune.solver.problem import check_target
from causalprune.solver.source import Float64

Rows = npt.NDArray[np.bool_]


class FittedRows:
    """y and the weights of its rows.

    Args:
        target: (T,) y.
        weights: (T,) weight of each row's squared error; None: all alike.
        held_out: Share of the rows, the last ones, that a side fit leaves out.
        folds: Blocks of rows that each a side fit leaves out; 0: none.

    Raises:
        UsageError: Weights of another length, or of which a side fit would have none.
        DataError: A target that no fit can be made of.

    Attributes:
        norm: ‖y‖.
        target: (T,) ŷ = y/‖y‖.
        weights: (T,), 1 where none were given.
        factor: (T,) √(w_t·T/Σw); None where no weights were given.
        tail: (T,) True for the rows that are held out; False throughout if none are.
        folds: (T,) each, True for its rows.
    """

    def __init__(self, target: Float64, weights: Float64 | None, held_out: float, folds: int) -> None:
        check_target(target)
        T = len(target)
        if weights is not None and weights.shape != (T,):
            raise UsageError("row weights", expected=f"{T} numbers", found=f"{weights.shape}")
        self.norm = float(np.linalg.norm(target))
        self.target = target / self.norm
        self.weights = np.ones(T) if weights is None else weights.astype(np.float64)
        self.factor = None if weights is None else row_factor(self.weights)
        self.tail = held_out_tail(T, held_out)
        self.folds: list[Rows] = blocks_of_steps(T, folds) if folds else []
        # A fold may hold all rows with weight.
        for left_out in self.side_rows:
            if not (self.weights * ~left_out).any():
                raise UsageError("row weights", expected="rows with weight in every part", found="a part without")

    @property
    def side_rows(self) -> list[Rows]:
        """What each side fit leaves out: the tail, if any, then the folds."""
        return ([self.tail] if self.tail.any() else []) + self.folds

    def r2(self, prediction: Float64, left_out: Rows | None = None) -> float:
        """R² of a prediction in units of ‖y‖: on all rows, or on those that its fit left out."""
        return r_squared(self.target, prediction, self.weights, left_out)

    def error(self, prediction: Float64, fold: int) -> float:
        """Mean squared error on a fold's rows, as a share of the mean of y²."""
        missed = self.target - prediction
        weights = self.weights * self.folds[fold]
        return float(np.average(missed**2, weights=weights) / np.mean(self.target**2))


def r_squared(target: Float64, prediction: Float64, weights: Float64, left_out: Rows | None = None) -> float:
    """1 − Σw(y − ŷ)²/Σw(y − ȳ)², ȳ the mean of the rows that were fitted; NaN where y is ȳ throughout.

    Args:
        target: (T,) y.
        prediction: (T,) ŷ.
        weights: (T,) w.
        left_out: (T,) the rows that are judged, which the fit left out; None: all, and all were fitted.
    """
    rows = np.ones(len(target), bool) if left_out is None else left_out
    fitted = rows if left_out is None else ~left_out
    mean = np.average(target[fitted], weights=weights[fitted])
    judged = weights[rows]
    spread = float(judged @ (target[rows] - mean) ** 2)
    if spread == 0:
        return float("nan")
    return 1.0 - float(judged @ (target[rows] - prediction[rows]) ** 2) / spread


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
    """(T,) bool per fold, True for the rows it leaves out: consecutive steps, because neighbors are alike.

    Raises:
        UsageError: Fewer than two rows per fold.
    """
    if num_rows < 2 * folds:
        raise UsageError("cv", expected=f"at most {num_rows // 2} folds of {num_rows} rows", found=f"{folds}")
    edges = np.linspace(0, num_rows, folds + 1).round().astype(int)
    masks = np.zeros((folds, num_rows), bool)
    for fold, (first, stop) in enumerate(pairwise(edges)):
        masks[fold, first:stop] = True
    return list(masks)


def bootstrap_counts(num_rows: int, seed: int, number: int) -> Float64:
    """(T,) how often each step is drawn in resample ``number``."""
    rng = np.random.default_rng(keyed_seed(seed, "bootstrap", number))
    return np.bincount(rng.integers(0, num_rows, num_rows), minlength=num_rows).astype(np.float64)
