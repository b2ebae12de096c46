"""What is minimized: penalties, α, scaling of the columns, row weights, held-out steps, folds and resamples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError, UsageError
from causalprune.solver.certificate import Penalty
from causalprune.solver.names import DEFAULT_ALPHA_RATIO
from causalprune.solver.source import Float64

SMALLEST_ALPHA_RATIO = 1e-12
"""α below this share of alpha_max is lost in the rounding of the residual: there is nothing left to penalize."""

_PENALTIES = (1e-200, 1e200)
"""λ₁ and λ₂ of the scaled problem are within these, so that nothing overflows: beyond them γ is 0, or α is refused."""

_LOSS_CHANGES = (1e-140, 1e140)
"""Between these the squares of loss changes are floating-point numbers."""


@dataclass(frozen=True)
class LassoProblem:
    """min_γ 1/(2T)·‖y − X̃γ̃‖² + α·ρ·‖γ̃‖₁ + α·(1 − ρ)/2·‖γ̃‖², scikit-learn's scaling, no intercept.

    X̃ = X·diag(s) are the scaled columns; γ = s·γ̃, the coefficients that are reported, are in units of loss per unit of
    X. α belongs to the scaled columns: s = 1 for ``normalize="none"``, s_k = 1/‖x_k‖ for ``"column"``.

    Attributes:
        alpha: α, or None.
        alpha_ratio: α as a share of alpha_max, the smallest α with γ = 0; or None. By default 0.1.
        num_alphas: Solve for this many α, in equal ratios from alpha_max down to ``alpha_min_ratio``; 0: for one.
        alpha_min_ratio: The smallest α of a path or a search, as a share of alpha_max.
        target_nonzero: Search for an α with this many nonzero γ.
        target_sparsity: Search for an α for which this share of γ is zero.
        l1_ratio: ρ in (0, 1]; 1 is the Lasso.
        sign: 1: γ ≥ 0; −1: γ ≤ 0; 0: free.
        normalize: Scaling of the columns.
        tol: Duality gap to reach, relative to ‖y‖²/(2T).

    Raises:
        UsageError: Values out of range, or that exclude each other.
    """

    alpha: float | None = None
    alpha_ratio: float | None = None
    num_alphas: int = 0
    alpha_min_ratio: float = 1e-2
    target_nonzero: int | None = None
    target_sparsity: float | None = None
    l1_ratio: float = 1.0
    sign: Literal[-1, 0, 1] = 0
    normalize: Literal["none", "column"] = "none"
    tol: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("alpha", "alpha_ratio", "alpha_min_ratio", "l1_ratio", "tol"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"`{name}`", expected="a finite number above 0", found=str(value))
        if self.l1_ratio > 1 or (self.alpha_ratio or 0) > 1 or self.alpha_min_ratio >= 1:
            raise UsageError("`l1_ratio`, `alpha_ratio` and `alpha_min_ratio`", expected="at most 1", found="more")
        for name in ("alpha_ratio", "alpha_min_ratio"):
            value = getattr(self, name)
            if value is not None and value < SMALLEST_ALPHA_RATIO:
                raise UsageError(f"`{name}`", expected=f"at least {SMALLEST_ALPHA_RATIO:g}", found=f"{value:g}")
        given = [
            f"`{name}`"
            for name in ("alpha", "alpha_ratio", "num_alphas", "target_nonzero", "target_sparsity")
            if getattr(self, name) not in (None, 0)
        ]
        if len(given) > 1:
            raise UsageError(" and ".join(given), expected="one of them", found=f"{len(given)}")

    def alphas(self, alpha_max: float) -> list[float]:
        """The α to solve for, descending, given alpha_max."""
        if self.alpha is not None:
            return [self.alpha]
        if self.num_alphas:
            return [float(a) for a in alpha_max * np.geomspace(1.0, self.alpha_min_ratio, self.num_alphas)]
        return [(self.alpha_ratio or DEFAULT_ALPHA_RATIO) * alpha_max]

    def check_alpha(self, alpha_max: float) -> None:
        """Reject an α that is nothing beside alpha_max.

        Raises:
            UsageError: α is below ``SMALLEST_ALPHA_RATIO`` of alpha_max.
        """
        if self.alpha is not None and self.alpha < SMALLEST_ALPHA_RATIO * alpha_max:
            raise UsageError(
                "`alpha`",
                expected=f"at least {SMALLEST_ALPHA_RATIO:g} of alpha_max, which is {alpha_max:.4g}",
                found=f"{self.alpha:g}",
            )

    def wanted_nonzero(self, num_rows: int, num_columns: int) -> int | None:
        """The number of nonzero γ to search for, or None.

        Raises:
            UsageError: More than a Lasso can have.
        """
        wanted = self.target_nonzero
        if self.target_sparsity is not None:
            wanted = max(1, round((1.0 - self.target_sparsity) * num_columns))
        if wanted is None:
            return None
        most = num_columns if self.l1_ratio < 1 else min(num_rows, num_columns)
        if wanted > most:
            remedy = "" if self.l1_ratio < 1 else "use `l1_ratio` below 1, whose support may exceed the rows"
            raise UsageError("nonzero γ", expected=f"at most {most:,}", found=f"{wanted:,}", remedy=remedy)
        return wanted


@dataclass(frozen=True)
class Scaling:
    """Converts α between the problem as stated and the one solved, whose columns and target are of the order of 1.

    x̃_j = s_j·x_j with s_j = ``unit`` or 1/‖x_j‖, ŷ = y/``target_norm``; then γ_j = target_norm·s_j·g_j.

    Attributes:
        unit: A power of two, so that nothing is rounded; 1 where columns are normalized.
        target_norm: ‖y‖.
    """

    unit: float
    target_norm: float

    def penalty(self, alpha: float, l1_ratio: float) -> Penalty:
        """λ₁ and λ₂ of the scaled problem for α and ρ of the problem as stated."""
        l1, l2 = alpha * l1_ratio * (self.unit / self.target_norm), alpha * (1.0 - l1_ratio) * self.unit**2
        return Penalty(min(max(l1, _PENALTIES[0]), _PENALTIES[1]), min(l2, _PENALTIES[1]))

    def alpha(self, l1: float, l1_ratio: float) -> float:
        """α of the problem as stated for λ₁ of the scaled problem."""
        return l1 * self.target_norm / (self.unit * l1_ratio)


@dataclass(frozen=True)
class SolverOptions:
    """How a solver works, and what it computes besides the fit. Each solver uses the options it supports.

    Attributes:
        memory_bytes: Bound on the memory of the whole process.
        max_passes: Passes over the store after which the solver gives up.
        seed: Seed of the order of blocks, of minibatches and of resamples.
        device: Where all columns are correlated: ``cpu``, ``cuda`` or ``cuda:N``.
        resident: Whether X is held on the device; None: if that is an accelerator with room for it. With several
            processes it isn't.
        held_out: Share of the rows, the last ones, on which a fit to the others is evaluated; 0: none.
        folds: Choose α from the path by cross-validation over this many blocks of steps; 0: don't.
        resamples: Bootstrap resamples of the steps for selection probabilities; 0: none.
        ranking: Compute every column's KKT score to within :data:`causalprune.solver.exact_fit.RANK_TOL`, even if that
            takes another pass.
        row_weights: (T,) weight of each row's squared error; None: all equal.
        preset: Which of the authors' variants ``sgd`` follows.
        num_weights: All prunable weights of the network, pruned ones included, of which the columns may be a part;
            None: as many as columns.
    """

    memory_bytes: int = 2**31
    max_passes: float = 10.0
    seed: int = 0
    device: str = "cpu"
    resident: bool | None = None
    held_out: float = 0.2
    folds: int = 0
    resamples: int = 0
    ranking: bool = True
    row_weights: Float64 | None = None
    preset: str = "june-2025"
    num_weights: int | None = None


def check_target(y: Float64) -> None:
    """Check that y can be fitted.

    Raises:
        DataError: Fewer than two rows, a constant y, NaN or infinity, or nothing whose square is a number.
    """
    if len(y) < 2:
        raise DataError("rows of the recording", expected="at least 2", found=str(len(y)), remedy="record more steps")
    if not np.isfinite(y).all():
        raise DataError("loss change", expected="finite numbers", found="NaN or infinity")
    if np.ptp(y) == 0:
        raise DataError("loss change", expected="a loss that changes from step to step", found=f"{y[0]:g} in every row")
    if not _LOSS_CHANGES[0] <= (largest := float(np.abs(y).max())) <= _LOSS_CHANGES[1]:
        raise DataError("loss change", expected="its largest between 1e-140 and 1e140", found=f"{largest:g}")


def no_movement() -> DataError:
    """The error if every column is zero."""
    return DataError("recorded deltas", expected="weights that move", found="zeros only", remedy="raise `lr`")


def no_correlation() -> DataError:
    """The error if every x̃_kᵀy is zero or has the wrong sign."""
    return DataError(
        "recorded deltas",
        expected="a column that correlates with the loss change",
        found="none",
        remedy="record more steps, or leave out `positive` and `negative`",
    )


def not_finite(column: int) -> DataError:
    """The error if a column of X isn't finite: steps whose squares overflow, since the store holds finite ones only."""
    return DataError(
        f"column {column} of X",
        expected="steps whose squares are finite in float32, below 1.8e19",
        found="NaN or infinity",
        remedy="record at a lower `lr`",
    )


Rows = npt.NDArray[np.bool_]


class FittedRows:
    """y, the weights of its rows, and the rows that each side fit leaves out.

    Args:
        target: (T,) y.
        weights: (T,) weight of each row's squared error; None: all equal.
        held_out: Share of the rows, the last ones, that a side fit leaves out.
        folds: Number of blocks of rows, each left out by a side fit; 0: none.

    Raises:
        UsageError: Weights of the wrong length, or all zero for a side fit.
        DataError: A target that can't be fitted.

    Attributes:
        norm: ‖y‖.
        target: (T,) ŷ = y/‖y‖.
        weights: (T,) the weights, 1 by default.
        factor: (T,) √(w_t·T/Σw); None without weights.
        tail: (T,) True for the held-out rows; False throughout if there are none.
        folds: For each fold (T,), True for its rows.
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
        # All rows with weight may be in the same fold.
        for left_out in self.side_rows:
            if not (self.weights * ~left_out).any():
                raise UsageError("row weights", expected="rows with weight in every part", found="a part without")

    @property
    def side_rows(self) -> list[Rows]:
        """(T,) rows that each side fit leaves out: the tail, if any, then the folds."""
        return ([self.tail] if self.tail.any() else []) + self.folds

    def r2(self, prediction: Float64, left_out: Rows | None = None) -> float:
        """R² of a prediction in units of ‖y‖, see :func:`r_squared`."""
        return r_squared(self.target, prediction, self.weights, left_out)

    def error(self, prediction: Float64, fold: int) -> float:
        """Mean squared error on a fold's rows, as a share of the mean of y²."""
        missed = self.target - prediction
        weights = self.weights * self.folds[fold]
        return float(np.average(missed**2, weights=weights) / np.mean(self.target**2))


def r_squared(target: Float64, prediction: Float64, weights: Float64, left_out: Rows | None = None) -> float:
    """1 − Σw(y − ŷ)²/Σw(y − ȳ)² with ȳ the mean of the fitted rows; NaN if y = ȳ throughout.

    Args:
        target: (T,) y.
        prediction: (T,) ŷ.
        weights: (T,) w.
        left_out: (T,) True for the rows that the fit left out, over which the sums run; None: all rows were fitted, and
            the sums run over all.
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
    """√(w_t·T/Σw): rows multiplied by it make an unweighted regression, in which T and α keep their meaning.

    Raises:
        UsageError: Weights that are negative, not finite, or all zero.
    """
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise UsageError("row weights", expected="finite numbers of at least 0, one of them above", found="others")
    factor: Float64 = np.sqrt(weights * (len(weights) / weights.sum()))
    return factor


def held_out_tail(num_rows: int, share: float) -> Rows:
    """(T,) True for the last steps; False throughout if fewer than two rows would be on either side."""
    count = round(share * num_rows)
    tail = np.zeros(num_rows, bool)
    if share > 0 and min(count, num_rows - count) >= 2:
        tail[num_rows - count :] = True
    return tail


def blocks_of_steps(num_rows: int, folds: int) -> list[Rows]:
    """(T,) for each fold, True for its rows: consecutive steps, because neighboring steps are alike.

    Raises:
        UsageError: Fewer than two rows per fold.
    """
    if num_rows < 2 * folds:
        raise UsageError("`cv`", expected=f"at most {num_rows // 2} folds of {num_rows} rows", found=f"{folds}")
    edges = np.linspace(0, num_rows, folds + 1).round().astype(int)
    masks = np.zeros((folds, num_rows), bool)
    for fold, (first, stop) in enumerate(pairwise(edges)):
        masks[fold, first:stop] = True
    return list(masks)


def bootstrap_counts(num_rows: int, seed: int, number: int) -> Float64:
    """(T,) how often resample ``number`` draws each step."""
    rng = np.random.default_rng(keyed_seed(seed, "bootstrap", number))
    return np.bincount(rng.integers(0, num_rows, num_rows), minlength=num_rows).astype(np.float64)
