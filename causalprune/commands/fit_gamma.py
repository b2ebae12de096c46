"""``fit-gamma``: fit the Granger coefficients γ of a recording, and write them beside it with their evidence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.curvature import curvature_table
from causalprune.analysis.plots.figures import require_matplotlib
from causalprune.base.compute.runtime import processes, resolve_device
from causalprune.base.errors import NumericalError, UsageError
from causalprune.base.json_files import decode_json, encode_json
from causalprune.base.paths import RunPaths, StoreUrl, fit_result_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.base.units import parse_bytes
from causalprune.commands._design import columns_of, no_causal_reading, penalty_of, per_squared_delta, row_weights
from causalprune.commands._output import StageResult, Work, done_already, publish, read_result, require_replaceable
from causalprune.commands.names import with_flags
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.solver.evidence import NotCertifiedError
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.process_group import ProcessGroup
from causalprune.trajectory import RecordingReader, Store
from causalprune.trajectory.array_groups import require_name


@dataclass(frozen=True, kw_only=True)
class FitGammaResult(StageResult):
    """Result of fit-gamma.

    Attributes:
        name: Name of the fit in the store.
        recording: Name of the recording.
        evidence: α, alpha_max, objective, duality gap, R², nonzeros and the rest, as JSON.
        layers: The same for each layer of a fit with ``scope="layer"``.
        curvature: Curvature and step size of each group, or why there are none, see
            :func:`causalprune.analysis.curvature.curvature_table`; None for a fit to single parameters.
        part_seconds: Where the exact solver's time went: ``read``, ``decode`` and ``product`` summed over threads, and
            ``subproblem``; not in the store, where equal fits are equal bytes.
    """

    name: str
    recording: str
    evidence: dict[str, Any]
    layers: dict[str, Any]
    curvature: dict[str, Any] | None
    part_seconds: dict[str, float]


def fit_gamma(config: FitGammaConfig, reporter: Reporter = SILENT, *, patient: bool = False) -> FitGammaResult:
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
    work = Work(stage="fit-gamma", config=config)
    path = config.store or RunPaths(config.run).store
    require_name("fit", config.name)
    store = Store.open(path)
    reader = store.recording(config.recording)
    work.outputs = _outputs(config, path, reader)
    work.inputs["recording"] = reader.digest
    work.warn(reporter, *filter(None, [no_causal_reading(reader)]))
    weights = row_weights(config, reader)
    if weights is not None:
        work.inputs["row_weights"] = hashlib.sha256(weights.tobytes()).hexdigest()
    exists = not config.overwrite and config.name in reader.fits
    stored = reader.read_fit(config.name).attributes if exists else {}
    # Which recording it is the inputs say.
    unsaid = {"recording": reader.name, "lags": int(reader.info.momentum > 0)}
    known = {"stage": work.stage, "identity": "", "config": {}, "inputs": {}} | stored
    if done_already(
        f"fit {config.name} in {path}",
        True,
        work.is_done_by(known, **unsaid) if exists else None,
        expected="no such fit, or one of this configuration and recording",
        remedy=f"pass --name to keep both, such as --name {_other_name(config)}, or --overwrite to replace it",
    ):
        work.warn(reporter, *_choice_at_an_end(config, stored))
        result = _result(work, reader, stored, already_done=True)
        if processes().is_first:
            _publish(work, result)
        return result

    solver: Solver = SOLVERS.load(config.solver)
    source, ranges, num_lags = columns_of(config, reader)
    problem, options = _problem(config), _solver_options(config)
    if weights is not None:
        options = replace(options, row_weights=weights[reader.num_rows - source.num_rows :])
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
            # While the first process writes the fit.
            own.first(lambda: None)
            return _result(work, reader, group.broadcast({}))
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
        work.warn(reporter, solution.evidence.warning)

    def by_lag(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(lags, P) of values whose lag columns lie side by side for each parameter, as in X."""
        return np.ascontiguousarray(values.reshape(-1, num_lags).T)

    arrays: dict[str, npt.NDArray[Any]] = {
        "gamma": by_lag(per_squared_delta(solution.gamma, config, reader)),
        "dual_correlation": by_lag(solution.dual_correlation),
        **solution.extras,
    }
    if "path_values" in arrays:
        arrays["path_values"] = per_squared_delta(arrays["path_values"], config, reader)
    if "selection_probability" in arrays:
        arrays["selection_probability"] = by_lag(arrays["selection_probability"])
    attributes: dict[str, Any] = {
        "identity": work.identity,
        "config": config.identity_fields(),
        "inputs": work.inputs,
        "granularity": config.granularity,
        "evidence": solution.evidence.to_json(),
        "layers": {layer: evidence.to_json() for layer, evidence in solution.layers},
    }
    work.warn(reporter, *_choice_at_an_end(config, attributes))
    if config.granularity != "parameter":
        table, found = curvature_table(
            reader,
            config.granularity,
            weights,
            lags=bool(config.lags),
            memory_bytes=options.memory_bytes,
            seed=config.seed,
        )
        arrays |= found
        if table.get("warning"):
            work.warn(reporter, table["warning"])
        attributes["curvature"] = table | {key: with_flags(table[key]) for key in ("unavailable",) if key in table}

    def write() -> None:
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

    own.first(write)
    attributes = group.broadcast(attributes)
    seconds = {part: round(value, 3) for part, value in solution.seconds.items()}
    result = _result(work, reader, attributes, seconds=seconds)
    _publish(work, result)
    return result


def _outputs(config: FitGammaConfig, store: Path | StoreUrl, reader: RecordingReader) -> dict[str, Path | StoreUrl]:
    """The path of each output by its role, checked before the work.

    Raises:
        UsageError: A plot without matplotlib.
        MismatchError: Another file exists where the result goes, and ``overwrite`` is not set.
    """
    path = fit_result_path(RunPaths(config.run), config.store, "fit-gamma", config.name, reader.name)
    require_replaceable(path, "fit-gamma", overwrite=config.overwrite)
    if config.plot is None:
        return {"store": store, "result": path}
    require_matplotlib()
    return {"store": store, "result": path, "plot": config.plot}


def _choice_at_an_end(config: FitGammaConfig, fit: dict[str, Any]) -> list[str]:
    """Say that cross-validation chose the first or the last α, beyond which a better one may lie."""
    if not config.cv:
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
            f"`alpha_min_ratio` (now {config.alpha_min_ratio:g})"
        )
    if first:
        found.append(
            f"cross-validation chose the first α, alpha_max{_of_layers(first)}: no γ predicts better than γ = 0; "
            "record more steps"
        )
    return found


def _of_layers(names: list[str]) -> str:
    return f", for {', '.join(names)}" if any(names) else ""


def _other_name(config: FitGammaConfig) -> str:
    """Suggest a name for a fit whose name is taken."""
    name = f"{config.granularity}s" if config.granularity != "parameter" else "another"
    return name if name != config.name else f"{name}-2"


def _problem(config: FitGammaConfig) -> LassoProblem:
    return LassoProblem(
        alpha=config.alpha,
        alpha_ratio=config.alpha_ratio,
        num_alphas=config.alphas,
        alpha_min_ratio=config.alpha_min_ratio,
        target_nonzero=config.target_nonzero,
        target_sparsity=config.target_sparsity,
        tol=config.tol,
        **penalty_of(config),
    )


def _solver_options(config: FitGammaConfig) -> SolverOptions:
    return SolverOptions(
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


def _result(
    work: Work,
    reader: RecordingReader,
    attributes: dict[str, Any],
    *,
    already_done: bool = False,
    seconds: dict[str, float] | None = None,
) -> FitGammaResult:
    """The result of a fit with these attributes."""
    return FitGammaResult(
        **work.common(already_done=already_done),
        name=work.config.name,
        recording=reader.name,
        evidence=attributes["evidence"],
        layers=attributes["layers"],
        curvature=attributes.get("curvature"),
        part_seconds=seconds or {},
    )


def _publish(work: Work, result: FitGammaResult) -> None:
    """Write the result, unless that of the same fit exists from the time when it was made; then draw the plot."""
    path = Path(str(work.outputs["result"]))
    as_read = decode_json(encode_json(result.to_json()), "result")
    if not result.already_done or _content(read_result(path)) != _content(as_read):
        publish(path, result, overwrite=work.config.overwrite)
    if work.config.plot is not None:
        from causalprune.analysis.plots.recording import plot_path

        plot_path(result.evidence, work.config.plot)


def _content(result: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The part of a result file that the stored fit determines: everything but times and places."""
    return result.get("inputs"), {n: v for n, v in result.get("metrics", {}).items() if n != "part_seconds"}
