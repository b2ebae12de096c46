"""Fit the Granger coefficients γ of a recording and write them beside it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.curvature_table import curvature_table
from causalprune.base.errors import DataError, MismatchError, NumericalError, UsageError
from causalprune.base.paths import RunPaths
from causalprune.base.progress import Reporter
from causalprune.base.runtime import processes, resolve_device
from causalprune.base.units import parse_bytes
from causalprune.commands._fit_result import FitGammaResult, FitReport
from causalprune.commands._output import done_already, identity_of
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.pruning.groups import group_ids
from causalprune.solver.evidence import NotCertifiedError
from causalprune.solver.features import FeatureSource
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.process_group import ProcessGroup
from causalprune.trajectory import RecordingReader, Store
from causalprune.trajectory.fits import require_name


def fit_gamma(config: FitGammaConfig, reporter: Reporter | None = None, *, patient: bool = False) -> FitGammaResult:
    """Solve min_γ 1/(2T)·‖y − Xγ‖² + α·‖γ‖₁ over a recording (or its variants) and store γ with its evidence.

    Args:
        config: Which recording, which problem, which solver.
        reporter: Passes on warnings; silent when left out.
        patient: Wait while another process changes fits of the same store on a disk, instead of giving up.

    Returns:
        The evidence.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    path = config.store or RunPaths(config.run).store
    require_name("fit", config.name)
    store = Store.open(path)
    reader = store.recording(config.recording)
    report = FitReport(config, reader)
    inputs = {"recording": reader.digest}
    weights = _row_weights(config, reader)
    if weights is not None:
        inputs["row_weights"] = hashlib.sha256(weights.tobytes()).hexdigest()
    identity = identity_of("fit-gamma", config, inputs)
    stored: dict[str, Any] = {}

    def find() -> object:
        if config.name not in reader.fits:
            return None
        stored.update(reader.read_fit(config.name).attributes)
        return stored.get("identity", "")

    if done_already(
        f"fit {config.name} in {path}",
        identity,
        find,
        overwrite=config.overwrite,
        expected="no such fit, or one of this configuration and recording",
        remedy=f"pass --name to keep both, such as --name {_other_name(config)}, or --overwrite to replace it",
    ):
        result = report.result(inputs, stored, started, already_done=True)
        if processes().is_first:
            report.publish(result)
        return result
    solver: Solver = SOLVERS.load(config.solver)
    options = SolverOptions(
        memory_bytes=parse_bytes(config.memory),
        max_passes=config.max_passes,
        seed=config.seed,
        device=config.device,
        held_out=config.held_out,
        folds=config.cv,
        resamples=config.bootstrap,
        ranking=config.ranking,
        preset=config.preset,
    )
    source, ranges, num_lags = design(config, reader)
    if weights is not None:
        options = replace(options, row_weights=weights[reader.num_rows - source.num_rows :])
    problem = LassoProblem(
        alpha=config.alpha,
        alpha_ratio=config.alpha_ratio,
        num_alphas=config.alphas,
        alpha_min_ratio=config.alpha_min_ratio,
        target_nonzero=config.target_nonzero,
        target_sparsity=config.target_sparsity,
        l1_ratio=config.l1_ratio,
        sign=1 if config.positive else -1 if config.negative else 0,
        normalize="column" if config.normalize == "column" else "none",
        tol=config.tol,
    )
    own = processes()
    group = ProcessGroup(own)
    if group.count > 1:
        if solver.assist is None:
            raise UsageError(
                "fit-gamma in several processes", expected="--solver lasso", found=f"--solver {config.solver}"
            )
        if config.device != "cpu":
            options = replace(options, device=str(resolve_device(config.device)))
        if not group.is_first:
            solver.assist(source, problem, options, ranges, group)
            own.first(_wait)
            return report.result(inputs, group.broadcast({}), started)
    name = config.name
    uncertified: NotCertifiedError | None = None
    with reporter.task("fit-gamma", -(-source.num_columns // source.block_width)) as bar:

        def notify(blocks: int, text: str) -> None:
            bar.describe(text)
            bar.advance(blocks)

        try:
            solution = solver.fit(source, problem, options, ranges, notify, group)
        except NotCertifiedError as error:
            uncertified, solution, name = error, error.result, f"{config.name}.uncertified"
    if solution.evidence.warning:
        reporter.warn(solution.evidence.warning)
    gamma = _per_squared_delta(solution.gamma, reader) if _divides_by_lr(config) else solution.gamma
    # The three lag columns of a parameter lie side by side in X, and in rows of their own in the store.
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "gamma": np.ascontiguousarray(gamma.reshape(-1, num_lags).T),
        "dual_correlation": np.ascontiguousarray(solution.dual_correlation.reshape(-1, num_lags).T),
    }
    for extra, values in solution.extras.items():
        arrays[extra] = values
        if extra == "path_values" and _divides_by_lr(config):
            arrays[extra] = _per_squared_delta(values, reader)
        if extra == "selection_probability":
            arrays[extra] = np.ascontiguousarray(values.reshape(-1, num_lags).T)
    attributes: dict[str, Any] = {
        "identity": identity,
        "config": config.identity_fields(),
        "inputs": inputs,
        "granularity": config.granularity,
        "evidence": solution.evidence.to_json(),
        "layers": {layer: evidence.to_json() for layer, evidence in solution.layers},
    }
    if config.granularity != "parameter":
        attributes["curvature"], found = curvature_table(
            reader,
            config.granularity,
            weights,
            lags=bool(config.lags),
            memory_bytes=parse_bytes(config.memory),
            seed=config.seed,
        )
        arrays |= found
        if attributes["curvature"].get("warning"):
            reporter.warn(attributes["curvature"]["warning"])

    def publish() -> None:
        store.fits(reader.name).write(
            name,
            arrays,
            attributes,
            overwrite=config.overwrite or uncertified is not None,
            break_lock=config.break_lock,
            patient=patient,
        )
        if uncertified is not None:
            raise NumericalError(
                f"{uncertified.subject}, kept as {name} in {path}",
                expected=uncertified.expected,
                found=uncertified.found,
                remedy=uncertified.remedy,
            ) from uncertified

    own.first(publish)
    attributes = group.broadcast(attributes)
    seconds = {part: round(value, 3) for part, value in solution.seconds.items()}
    result = report.result(inputs, attributes, started, seconds=seconds)
    report.publish(result)
    return result


def _other_name(config: FitGammaConfig) -> str:
    """A name for a fit whose name is taken."""
    name = f"{config.granularity}s" if config.granularity != "parameter" else "another"
    return name if name != config.name else f"{name}-2"


def _wait() -> None:
    """What the other processes have to do while the first one writes the fit."""


def _row_weights(config: FitGammaConfig, reader: RecordingReader) -> npt.NDArray[np.float64] | None:
    """Weights of the recorded steps, from a file of numbers.

    Raises:
        DataError: No such file, no numbers, or not one for each step.
    """
    path = config.row_weights
    if path is None:
        return None
    remedy = "write them with numpy.save or numpy.savetxt"
    try:
        loaded = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
        weights = np.asarray(loaded, np.float64)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}", expected="a file of numbers", found=str(error)[:80], remedy=remedy) from error
    if weights.shape != (reader.num_rows,):
        raise DataError(
            f"{path}", expected=f"{reader.num_rows} numbers, one per step", found=f"{weights.shape}", remedy=remedy
        )
    return weights


def design(
    config: FitGammaConfig, reader: RecordingReader
) -> tuple[FeatureSource, list[tuple[str, int, int]] | None, int]:
    """The columns of X, the ranges of them that are layers when each is fitted by itself, and columns per parameter."""
    lags = config.lags if config.lags is not None else int(reader.info.momentum > 0)
    num_lags = 1 if lags == 0 else 3
    groups = None
    if config.granularity != "parameter":
        groups, _ = group_ids(reader.index, config.granularity, reader.active)
    source = FeatureSource(reader, lags=1 if lags else 0, groups=groups, lr_scale=_divides_by_lr(config))
    if config.scope == "global":
        return source, None, num_lags
    ranges, first = [], 0
    for entry in reader.index:
        part = slice(entry.offset, entry.stop)
        if groups is None:
            count = int(reader.active[part].sum())
        else:
            before = int(reader.active[: entry.offset].sum())
            members = groups[before : before + int(reader.active[part].sum())]
            count = len(np.unique(members))
        if count:
            ranges.append((entry.name, first * num_lags, (first + count) * num_lags))
        first += count
    return source, ranges, num_lags


def _divides_by_lr(config: FitGammaConfig) -> bool:
    solver: Solver = SOLVERS.load(config.solver)
    return config.normalize == "lr" or solver.divides_by_lr(SolverOptions(preset=config.preset))


def _per_squared_delta(gamma: npt.NDArray[np.float64], reader: RecordingReader) -> npt.NDArray[np.float64]:
    """γ per Δθ² of a fit to Δθ²/η²."""
    lr = np.unique(reader.steps.lr)
    if len(lr) > 1:
        raise MismatchError(
            f"recording {reader.name}",
            expected="one learning rate, to divide the columns by its square",
            found=f"{lr.min():g} to {lr.max():g}",
            remedy="use --normalize none or column",
        )
    return gamma / lr[0] ** 2
