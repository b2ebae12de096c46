"""Placebo fits to permuted loss changes: what a fit shows if there is nothing to find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError
from causalprune.solver.exact_fit import SIDE_TOL, fit_exactly
from causalprune.solver.problem import LassoProblem, Rows, SolverOptions, held_out_tail, r_squared
from causalprune.solver.source import ArraySource, ColumnSource, Float64
from causalprune.solver.streaming import Notify

_SHARE = 4
"""All fits share X in memory if it needs at most 1/4 of the memory; otherwise each fit reads it from the store."""


@dataclass(frozen=True)
class PlaceboFit:
    """What to compare between a fit and its placebos.

    Attributes:
        r2_held_out: R² on the last steps of a fit to the steps before them.
        num_nonzero: Number of nonzero γ of the fit to all steps.
        alpha_max: The smallest α with γ = 0.
    """

    r2_held_out: float
    num_nonzero: int
    alpha_max: float


def placebo_fits(
    source: ColumnSource,
    problem: LassoProblem,
    options: SolverOptions,
    ranges: Sequence[tuple[str, int, int]] | None,
    count: int,
    notify: Notify | None = None,
) -> Iterator[PlaceboFit]:
    """Fit y, then ``count`` random permutations of y over the steps, all at the same ratio of α to their alpha_max.

    Args:
        source: X and y.
        problem: With ``alpha_ratio``.
        options: With ``held_out``; resamples and folds are ignored.
        ranges: Column ranges of layers to fit separately; None for one fit of all columns.
        count: Number of permutations.
        notify: Called after each block of X is read.

    Yields:
        The fit of y, then those of its permutations.

    Raises:
        DataError: Too few rows to hold any out, or no fit of y exists.
        NumericalError: A fit didn't converge within the allowed passes.
    """
    tail = held_out_tail(source.num_rows, options.held_out)
    if not tail.any():
        raise DataError("recorded steps", expected="two or more to hold out", found=f"{source.num_rows} in all")
    options = replace(options, folds=0, resamples=0, ranking=False, row_weights=None)
    problem = replace(problem, tol=SIDE_TOL)
    if 4 * source.num_rows * source.num_columns <= options.memory_bytes // _SHARE:
        source = ArraySource(source.read(0, source.num_columns), source.target, source.block_width)
        options = replace(options, memory_bytes=options.memory_bytes - options.memory_bytes // _SHARE)
    rng = np.random.default_rng(keyed_seed(options.seed, "placebo"))
    for number in range(count + 1):
        permuted = copy(source)
        if number > 0:
            permuted.target = rng.permutation(source.target)
        try:
            evidence = fit_exactly(permuted, problem, options, ranges, notify).evidence
        except DataError:
            if number == 0:
                raise
            # All γ would have the sign that is excluded, so the fit is γ = 0.
            yield PlaceboFit(_r2_held_out(permuted, np.zeros(source.num_rows), tail), 0, 0.0)
            continue
        assert evidence.r2_held_out is not None
        yield PlaceboFit(evidence.r2_held_out, evidence.num_nonzero, evidence.alpha_max)


def common_gamma(source: ColumnSource, lags: int, held_out: float) -> float:
    """R² on the last steps of ΔL = γ·Σ_k Δθ_k² with one γ for all parameters, fitted to the steps before them.

    A fit with a γ per parameter must beat it to show anything about single parameters.

    Args:
        source: X and y.
        lags: Columns per parameter, each with a common γ of its own: 1, or 3 with lags.
        held_out: Share of the steps to hold out.
    """
    sums = np.zeros((source.num_rows, lags))
    for first, block in source.blocks():
        places = (first + np.arange(block.shape[1])) % lags
        for lag in range(lags):
            sums[:, lag] += block[:, places == lag].sum(axis=1, dtype=np.float64)
    tail = held_out_tail(source.num_rows, held_out)
    scale = np.linalg.norm(sums[~tail], axis=0)
    scale[scale == 0] = 1
    found = np.linalg.lstsq(sums[~tail] / scale, source.target[~tail], rcond=None)[0]
    return _r2_held_out(source, sums @ (found / scale), tail)


def _r2_held_out(source: ColumnSource, prediction: Float64, tail: Rows) -> float:
    return r_squared(source.target, prediction, np.ones(source.num_rows), tail)
