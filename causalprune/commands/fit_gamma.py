"""``fit-gamma``: fit the Granger coefficients γ of a recording, and write them beside it with their evidence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from causalprune.analysis.diagnosis.agreement import fit_stability
from causalprune.analysis.diagnosis.findings import stability_finding
from causalprune.analysis.plots.figures import require_matplotlib
from causalprune.base import files
from causalprune.base.compute.runtime import processes
from causalprune.base.errors import DataError
from causalprune.base.files import require_file
from causalprune.base.json_files import decode_json, encode_json
from causalprune.base.paths import RunPaths, StoreUrl, fit_result_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._output import StageResult, Work, done_already, publish, read_result, require_replaceable
from causalprune.commands._said import difference
from causalprune.commands._stores import open_store
from causalprune.commands.names import with_flags
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.solver.process_group import ProcessGroup
from causalprune.solver.recording.regression import Regression, choice_at_an_end
from causalprune.solver.source import Float64
from causalprune.trajectory import RecordingReader
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
            :func:`causalprune.solver.recording.curvature.curvature_table`; None for a fit to single parameters.
        selection: How often each γ is nonzero in resamples of the steps, where they were asked for: ``resamples``, what
            :func:`causalprune.analysis.diagnosis.agreement.stability` counts, and the ``finding`` in words; else None.
        part_seconds: Where the exact solver's time went: ``read``, ``decode`` and ``product`` summed over threads, and
            ``subproblem``; not in the store, where equal fits are equal bytes.
    """

    name: str
    recording: str
    evidence: dict[str, Any]
    layers: dict[str, Any]
    curvature: dict[str, Any] | None
    selection: dict[str, Any] | None
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
    store = open_store(path)
    reader = store.recording(config.recording)
    work.outputs = _outputs(config, path, reader)
    work.add_recording(reader)
    covers = f"γ is of {reader.coverage}; what the others do to the loss is noise to it" if reader.coverage else ""
    work.warn(reporter, *filter(None, [reader.no_causal_reading, covers]))
    if not reader.finished:
        rows = f"its first {reader.num_rows:,} rows"
        work.warn(reporter, f"recording {reader.name} isn't finished: γ is of {rows}; fit again when it is")
    weights = row_weights(config, reader.num_rows)
    if weights is not None:
        work.inputs["row_weights"] = hashlib.sha256(weights.tobytes()).hexdigest()
    exists = not config.overwrite and config.name in reader.fits
    stored = reader.read_fit(config.name).attributes if exists else {}
    # Which recording it is the inputs say.
    unsaid = {"recording": reader.name, "lags": int(reader.info.momentum > 0)}
    known = {"stage": work.stage, "identity": "", "config": {}, "inputs": {}} | stored
    earlier = config.written_out(known["config"]) if isinstance(known["config"], dict) else {}
    changed = difference(FitGammaConfig, earlier, config.identity_fields()) if earlier else ""
    if done_already(
        f"fit {config.name} in {path}",
        True,
        work.is_done_by(known, **unsaid) if exists else None,
        expected="no such fit, or one of this configuration and recording",
        found=f"another ({changed})" if changed else "another",
        remedy=f"name another fit to keep both, as `name={_other_name(config)}`, or pass `overwrite` to replace it",
    ):
        work.warn(reporter, *choice_at_an_end(config, stored))
        result = _result(work, reader, stored, already_done=True)
        if processes().is_first:
            _publish(work, result)
        return result

    own = processes()

    def require_writable() -> None:
        files.require_writable(Path(str(work.outputs["result"])))
        store.fits(reader.name).require_writable(break_lock=config.break_lock, patient=patient)

    own.first(require_writable)
    regression = Regression(reader, config, weights)
    group = ProcessGroup(own)
    regression.share(group)
    if not group.is_first:
        regression.assist(group)
        # While the first process writes the fit.
        own.first(lambda: None)
        return _result(work, reader, group.broadcast({}))
    with reporter.task("fit-gamma", regression.num_blocks) as bar:

        def notify(blocks: int, text: str) -> None:
            bar.describe(text)
            bar.advance(blocks)

        fitted = regression.solve(notify, group)
    work.warn(reporter, *fitted.warnings)
    if "unavailable" in (table := fitted.attributes.get("curvature", {})):
        table["unavailable"] = with_flags(table["unavailable"])
    attributes: dict[str, Any] = {"identity": work.identity, "config": config.identity_fields(), "inputs": work.inputs}
    own.first(
        lambda: fitted.write(
            store,
            reader.name,
            config.name,
            attributes,
            overwrite=config.overwrite,
            break_lock=config.break_lock,
            patient=patient,
        )
    )
    attributes = group.broadcast(attributes | fitted.attributes)
    seconds = {part: round(value, 3) for part, value in fitted.seconds.items()}
    result = _result(work, reader, attributes, seconds=seconds)
    _publish(work, result)
    return result


def row_weights(config: FitGammaConfig, num_rows: int) -> Float64 | None:
    """(T,) weights of the recorded steps, from a file of numbers.

    Raises:
        DataError: No such file, no numbers, or not one for each step.
    """
    path = config.row_weights
    if path is None:
        return None
    remedy = "write them with numpy.save or numpy.savetxt"
    require_file(path, expected="a file of numbers", remedy=remedy)
    try:
        loaded = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
        weights = np.asarray(loaded, np.float64)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}", expected="a file of numbers", found=str(error)[:80], remedy=remedy) from error
    if weights.shape != (num_rows,):
        raise DataError(
            f"{path}", expected=f"{num_rows} numbers, one per step", found=f"{weights.shape}", remedy=remedy
        )
    return weights


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


def _other_name(config: FitGammaConfig) -> str:
    """Suggest a name for a fit whose name is taken."""
    name = f"{config.granularity}s" if config.granularity != "parameter" else "another"
    return name if name != config.name else f"{name}-2"


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
        selection=_selection(work, reader),
        part_seconds=seconds or {},
    )


def _selection(work: Work, reader: RecordingReader) -> dict[str, Any] | None:
    """How stable the choice of a stored fit is; None in the other processes, which print nothing."""
    if not work.config.bootstrap or not processes().is_first:
        return None
    found = fit_stability(reader.read_fit(work.config.name))
    return None if found is None else {**found, "finding": stability_finding(found)}


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
