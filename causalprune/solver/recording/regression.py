"""The fit of γ to a recording: from the store's rows to γ, its KKT scores and their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.base.compute.runtime import resolve_device
from causalprune.base.errors import NumericalError, UsageError
from causalprune.base.units import parse_bytes
from causalprune.solver.evidence import NotCertifiedError
from causalprune.solver.features import FeatureSource
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.process_group import ProcessGroup
from causalprune.solver.recording.columns import columns_of, penalty_of, per_squared_delta
from causalprune.solver.recording.curvature import curvature_table
from causalprune.solver.recording.options import FitOptions
from causalprune.solver.source import Float64
from causalprune.solver.streaming import Notify
from causalprune.trajectory import RecordingReader, Store

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class FittedGamma:
    """What a fit found, as the store keeps it.

    Attributes:
        arrays: ``gamma`` and ``dual_correlation``, (lags, columns), and what else the options ask for.
        attributes: ``granularity``, ``evidence``, ``layers`` and, for groups, ``curvature``; JSON-ready.
        warnings: What the user should know of them.
        seconds: Where the exact solver's time went.
        uncertified: Why the solver gave up, if it did; the arrays are what it had.
    """

    arrays: Arrays
    attributes: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    uncertified: NotCertifiedError | None = None

    def write(
        self,
        store: Store,
        recording: str,
        name: str,
        provenance: dict[str, Any],
        *,
        overwrite: bool = False,
        break_lock: bool = False,
        patient: bool = False,
    ) -> None:
        """Write it into the store, one without a certificate as ``NAME.uncertified``.

        Args:
            store: The store.
            recording: Name of the recording in it.
            name: Name of the fit.
            provenance: ``identity``, ``config`` and ``inputs``, which tell the same work from another.
            overwrite: See :meth:`causalprune.trajectory.array_groups.FitStore.write`.
            break_lock: See there.
            patient: See there.

        Raises:
            NumericalError: It has no certificate; it is kept all the same.
            UsageError: The name can't be used, or is taken.
            LockedError: Another process is changing fits.
            StorageError: Storage refused.
        """
        error = self.uncertified
        kept = name if error is None else f"{name}.uncertified"
        store.fits(recording).write(
            kept,
            self.arrays,
            provenance | self.attributes,
            overwrite=overwrite or error is not None,
            break_lock=break_lock,
            patient=patient,
        )
        if error is not None:
            raise NumericalError(
                f"{error.subject}, kept as {kept} in {store.path}",
                expected=error.expected,
                found=error.found,
                remedy=error.remedy,
            ) from error


def problem_of(options: FitOptions) -> LassoProblem:
    """The problem that options state.

    Raises:
        UsageError: Values out of range.
    """
    return LassoProblem(
        alpha=options.alpha,
        alpha_ratio=options.alpha_ratio,
        num_alphas=options.alphas,
        alpha_min_ratio=options.alpha_min_ratio,
        target_nonzero=options.target_nonzero,
        target_sparsity=options.target_sparsity,
        tol=options.tol,
        **penalty_of(options),
    )


def solver_options(options: FitOptions, num_weights: int, row_weights: Float64 | None, num_rows: int) -> SolverOptions:
    """How the problem is solved.

    Args:
        options: Those of the fit.
        num_weights: Prunable weights of the network.
        row_weights: See :class:`Regression`.
        num_rows: Rows of X, the last ones of the recording.
    """
    return SolverOptions(
        memory_bytes=parse_bytes(options.memory),
        max_passes=options.max_passes,
        seed=options.seed,
        device=options.device,
        held_out=options.held_out,
        folds=options.cv,
        resamples=options.bootstrap,
        ranking=options.ranking,
        preset=options.preset,
        num_weights=num_weights,
        row_weights=None if row_weights is None else row_weights[len(row_weights) - num_rows :],
    )


def require_processes(options: FitOptions, count: int) -> None:
    """Check that the solver runs in so many processes.

    Raises:
        UsageError: It runs in one process only.
    """
    solver: Solver = SOLVERS.load(options.solver)
    if count > 1 and solver.assist is None:
        raise UsageError(
            "fit-gamma in several processes", expected="`solver=lasso`", found=f"`solver={options.solver}`"
        )


class Regression:
    """min_γ 1/(2T)·‖y − X̃γ̃‖² + α·ρ·‖γ̃‖₁ + α·(1 − ρ)/2·‖γ̃‖² over the rows of a recording.

    Args:
        reader: The recording.
        options: Which problem, and how it is solved.
        row_weights: (T,) weight of each row's squared error; None for equal weights.

    Raises:
        MismatchError: Columns to be divided by a learning rate that changed; a granularity that the network lacks.

    Attributes:
        source: X and y.
    """

    def __init__(self, reader: RecordingReader, options: FitOptions, row_weights: Float64 | None = None) -> None:
        self._reader, self._options, self._row_weights = reader, options, row_weights
        self._solver: Solver = SOLVERS.load(options.solver)
        self.source: FeatureSource
        self.source, self._ranges, self._num_lags = columns_of(options, reader)
        self._problem = problem_of(options)
        self._how = solver_options(options, reader.index.total, row_weights, self.source.num_rows)

    @property
    def num_blocks(self) -> int:
        """Blocks of columns that a pass reads."""
        return -(-self.source.num_columns // self.source.block_width)

    def share(self, group: ProcessGroup) -> None:
        """Prepare to divide the columns among several processes.

        Raises:
            UsageError: A solver that runs in one process only.
        """
        require_processes(self._options, group.count)
        if group.count > 1 and self._options.device != "cpu":
            self._how = replace(self._how, device=str(resolve_device(self._options.device)))

    def assist(self, group: ProcessGroup) -> None:
        """What the other processes do while the first one solves."""
        assert self._solver.assist is not None
        self._solver.assist(self.source, self._problem, self._how, self._ranges, group)

    def solve(self, notify: Notify | None = None, group: ProcessGroup | None = None) -> FittedGamma:
        """Fit γ.

        Args:
            notify: Called after each block that a streaming solver reads.
            group: The processes that divide the columns, of which this is the first.

        Raises:
            UsageError: Options that the solver doesn't support, or too little memory.
            DataError: X or y that can't be fitted.
            CorruptError: The store is damaged.
        """
        uncertified: NotCertifiedError | None = None
        try:
            solution = self._solver.fit(self.source, self._problem, self._how, self._ranges, notify, group)
        except NotCertifiedError as error:
            uncertified, solution = error, error.result
        options, reader = self._options, self._reader
        arrays: Arrays = {
            "gamma": self._by_lag(per_squared_delta(solution.gamma, options, reader)),
            "dual_correlation": self._by_lag(solution.dual_correlation),
            **solution.extras,
        }
        if "path_values" in arrays:
            arrays["path_values"] = per_squared_delta(arrays["path_values"], options, reader)
        if "selection_probability" in arrays:
            arrays["selection_probability"] = self._by_lag(arrays["selection_probability"])
        attributes: dict[str, Any] = {
            "granularity": options.granularity,
            "evidence": solution.evidence.to_json(),
            "layers": {layer: evidence.to_json() for layer, evidence in solution.layers},
        }
        warnings = [solution.evidence.warning, *choice_at_an_end(options, attributes)]
        if options.granularity != "parameter":
            table, found = curvature_table(
                reader,
                options.granularity,
                self._row_weights,
                lags=bool(options.lags),
                memory_bytes=self._how.memory_bytes,
                seed=options.seed,
            )
            arrays |= found
            warnings.append(table.get("warning", ""))
            attributes["curvature"] = table
        return FittedGamma(arrays, attributes, tuple(filter(None, warnings)), dict(solution.seconds), uncertified)

    def _by_lag(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(lags, P) of values whose lag columns lie side by side for each parameter, as in X."""
        return np.ascontiguousarray(values.reshape(-1, self._num_lags).T)


def choice_at_an_end(options: FitOptions, fit: dict[str, Any]) -> list[str]:
    """Say that cross-validation chose the first or the last α, beyond which a better one may lie."""
    if not options.cv:
        return []
    first, last = [], []
    for name, evidence in (fit["layers"] or {"": fit["evidence"]}).items():
        alphas = [point["alpha"] for point in evidence["path"]]
        if len(alphas) > 1 and evidence["alpha"] == min(alphas):
            last.append(name)
        elif len(alphas) > 1 and evidence["alpha"] == max(alphas):
            first.append(name)
    found = []
    if last:
        found.append(
            f"cross-validation chose the last α, the smallest{_of_layers(last)}: a smaller one may be better; lower "
            f"`alpha_min_ratio` (now {options.alpha_min_ratio:g})"
        )
    if first:
        found.append(
            f"cross-validation chose the first α, alpha_max{_of_layers(first)}: no γ predicts better than γ = 0; "
            "record more steps"
        )
    return found


def _of_layers(names: Sequence[str]) -> str:
    return f", for {', '.join(names)}" if any(names) else ""
