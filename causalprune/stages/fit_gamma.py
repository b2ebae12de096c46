"""Fit the Granger coefficients γ of a recording and write them beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.config import FitGammaConfig
from causalprune.errors import MismatchError
from causalprune.files import make_directory, remove_partials, write_json
from causalprune.locking import FileLock
from causalprune.paths import RunPaths, lock_path
from causalprune.pruning.groups import group_ids
from causalprune.quantities import parse_bytes
from causalprune.reporting import Reporter
from causalprune.solver.fit import fit
from causalprune.solver.problem import LassoProblem
from causalprune.solver.truncated_gradient import PRESETS
from causalprune.stages.artefacts import StageResult, identity_of
from causalprune.store import RecordingReader, TrajectoryStore
from causalprune.store.features import FeatureSource


@dataclass(frozen=True, kw_only=True)
class FitGammaResult(StageResult):
    """Result of fit-gamma.

    Attributes:
        name: Name of the fit in the store.
        recording: Name of the recording.
        evidence: α, alpha_max, objective, duality gap, R², nonzeros and the rest, as JSON.
        layers: The same for each layer of a fit with ``scope="layer"``.
    """

    name: str
    recording: str
    evidence: dict[str, Any]
    layers: dict[str, Any]


def fit_gamma(config: FitGammaConfig, reporter: Reporter | None = None) -> FitGammaResult:
    """Solve min_γ 1/(2T)·‖y − Xγ‖² + α·‖γ‖₁ over a recording (or its variants) and store γ with its evidence.

    Args:
        config: Which recording, which problem, which solver.
        reporter: Passes on warnings; silent when left out.

    Returns:
        The evidence.

    Raises:
        CausalpruneError: See :mod:`causalprune.errors` for the family.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    run = RunPaths(config.run)
    path = config.store or run.store
    reader = TrajectoryStore.open(path).recording(config.recording)
    inputs = {"recording": reader.digest}
    identity = identity_of("fit-gamma", config, inputs)
    if config.name in reader.fits and not config.overwrite:
        stored = reader.read_fit(config.name)
        if stored.attributes.get("identity") != identity:
            raise MismatchError(
                f"fit {config.name} in {path}",
                expected="no such fit, or one of this configuration and recording",
                found="another",
                remedy="pass --overwrite to replace it, or another --name",
            )
        result = _result(config, reader, inputs, dict(stored.attributes), started, already_done=True)
        # A crash may have come between the fit and its result.
        if not _result_path(config, run, path).exists():
            _publish(result, _result_path(config, run, path))
        return result
    source, ranges, num_lags = _design(config, reader, path)
    problem = LassoProblem(
        alpha=config.alpha,
        alpha_ratio=config.alpha_ratio,
        l1_ratio=config.l1_ratio,
        normalize="column" if config.normalize == "column" else "none",
        tol=config.tol,
    )
    solution = fit(
        source,
        problem,
        solver=config.solver,
        preset=config.preset,
        memory_bytes=parse_bytes(config.memory),
        seed=config.seed,
        ranges=ranges,
    )
    if solution.evidence.warning:
        reporter.warn(solution.evidence.warning)
    gamma = _per_squared_delta(solution.gamma, reader) if _divides_by_lr(config) else solution.gamma
    # The three lag columns of a parameter lie side by side in X, and in rows of their own in the store.
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "gamma": np.ascontiguousarray(gamma.reshape(-1, num_lags).T),
        "dual_correlation": np.ascontiguousarray(solution.dual_correlation.reshape(-1, num_lags).T),
    }
    attributes = {
        "identity": identity,
        "config": config.identifying(),
        "inputs": inputs,
        "granularity": config.granularity,
        "evidence": solution.evidence.to_json(),
        "layers": {name: evidence.to_json() for name, evidence in solution.layers},
    }
    reader.write_fit(config.name, arrays, attributes, overwrite=config.overwrite)
    result = _result(config, reader, inputs, attributes, started)
    _publish(result, _result_path(config, run, path))
    return result


def _result_path(config: FitGammaConfig, run: RunPaths, store: Path) -> Path:
    return run.result("fit-gamma") if config.store is None else store.with_name(f"{store.name}.{config.name}.json")


def _publish(result: FitGammaResult, path: Path) -> None:
    make_directory(path.parent)
    with FileLock(lock_path(path)):
        remove_partials(path.parent, path.name)
        write_json(path, result.to_json())


def _design(
    config: FitGammaConfig, reader: RecordingReader, path: Any
) -> tuple[FeatureSource, list[tuple[str, int, int]] | None, int]:
    """The columns of X, the ranges of them that are layers when each is fitted by itself, and columns a parameter."""
    index = TrajectoryStore.open(path).index
    lags = config.lags if config.lags is not None else int(reader.info.momentum > 0)
    num_lags = 1 if lags == 0 else 3
    groups = None
    if config.granularity != "parameter":
        groups, _ = group_ids(index, config.granularity, reader.active)
    source = FeatureSource(reader, lags=1 if lags else 0, groups=groups, lr_scale=_divides_by_lr(config))
    if config.scope == "global":
        return source, None, num_lags
    ranges, first = [], 0
    for entry in index:
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
    return config.normalize == "lr" or (config.solver == "sgd" and PRESETS[config.preset].divide_by_lr)


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


def _result(
    config: FitGammaConfig,
    reader: RecordingReader,
    inputs: dict[str, str],
    attributes: dict[str, Any],
    started: float,
    *,
    already_done: bool = False,
) -> FitGammaResult:
    return FitGammaResult(
        stage="fit-gamma",
        inputs=inputs,
        outputs={"store": str(config.store or RunPaths(config.run).store)},
        already_done=already_done,
        seconds=time.monotonic() - started,
        name=config.name,
        recording=reader.name,
        evidence=attributes["evidence"],
        layers=attributes["layers"],
    )
