"""``diagnose``: whether a fit predicts, is stable, and agrees with interventions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from causalprune.analysis.diagnosis.agreement import agreement, fit_stability, magnitudes
from causalprune.analysis.diagnosis.findings import findings
from causalprune.analysis.diagnosis.interventions import intervene
from causalprune.analysis.diagnosis.placebo import common_gamma, placebo_fits
from causalprune.analysis.diagnosis.rounding import rounding
from causalprune.analysis.flatness.samples import draw_samples
from causalprune.base import files
from causalprune.base.compute.runtime import keyed_seed, make_deterministic
from causalprune.base.errors import MismatchError, UsageError
from causalprune.base.paths import RunPaths, fit_result_path
from causalprune.base.progress import SILENT, Reporter
from causalprune.base.units import parse_bytes
from causalprune.commands._network import set_up
from causalprune.commands._output import StageResult, Work, check_distinct, publish, require_replaceable
from causalprune.commands._stores import open_store
from causalprune.commands.names import with_flags
from causalprune.config.diagnose import DiagnoseConfig
from causalprune.solver.problem import LassoProblem, SolverOptions, held_out_tail
from causalprune.solver.recording.columns import columns_of, penalty_of
from causalprune.solver.recording.fit import require_of_all_rows
from causalprune.solver.recording.options import FitOptions
from causalprune.trajectory import Fit, RecordingReader, Store

HELD_OUT = 0.2
"""Share of the steps that are held out, for a fit that held out none."""


@dataclass(frozen=True, kw_only=True)
class DiagnoseResult(StageResult):
    """Result of diagnose.

    Attributes:
        fit: Name of the fit.
        recording: Name of its recording.
        diagnosis: ``rounding``, ``placebo``, ``stability``, ``agreement`` and ``interventions``: each has the
            measurements, or only ``unavailable``, the reason why there are none.
        findings: What they mean, one sentence each.
    """

    fit: str
    recording: str
    diagnosis: dict[str, Any]
    findings: list[str]


def diagnose(config: DiagnoseConfig, reporter: Reporter = SILENT) -> DiagnoseResult:
    """Measure how far a fit can be trusted.

    Does it predict held-out steps, and better than fits to permuted losses? Is its choice stable over resamples of the
    steps and over recordings? Does setting weights to zero do what it predicts?

    Args:
        config: Which fit, and how much to spend on it.
        reporter: Shows progress; silent when left out.

    Returns:
        The measurements; they are also written as JSON.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    work = Work(stage="diagnose", config=config)
    run = RunPaths(config.run)
    if config.deterministic:
        make_deterministic()
    path = config.store or run.store
    checkpoint_path = config.checkpoint or run.recorded
    store = open_store(path)
    reader = store.recording(config.recording)
    output = config.output or fit_result_path(run, config.store, "diagnose", config.fit, reader.name)
    check_distinct(output, *(p for p in (checkpoint_path, path, config.other) if isinstance(p, Path)))
    require_replaceable(output, "diagnose", overwrite=config.overwrite)
    fit = reader.read_fit(config.fit)
    require_of_all_rows(fit, config.fit, reader, path)
    files.require_writable(output)
    work.outputs = {"result": output}
    work.inputs |= {"recording": reader.digest, "fit": fit.digest}
    # Before the others, because its arguments may be wrong.
    agreeing = _agreement(work, store, reader, fit)
    diagnosis = {
        "rounding": rounding(reader),
        "placebo": _placebo(config, reader, fit, reporter),
        "stability": fit_stability(fit)
        or {"unavailable": "the fit has no selection probabilities; make one with fit-gamma --bootstrap 50"},
        "agreement": agreeing,
        "interventions": _interventions(work, checkpoint_path, reader, fit, reporter),
    }
    result = DiagnoseResult(
        **work.common(),
        fit=config.fit,
        recording=reader.name,
        diagnosis=diagnosis,
        findings=[with_flags(finding) for finding in findings(diagnosis)],
    )
    publish(output, result, overwrite=config.overwrite)
    return result


def _placebo(config: DiagnoseConfig, reader: RecordingReader, fit: Fit, reporter: Reporter) -> dict[str, Any]:
    if not config.placebo:
        return {"unavailable": "--placebo is 0"}
    evidence = fit.attributes["evidence"]
    if evidence["solver"].startswith("sgd"):
        return {"unavailable": "the fit is one of --solver sgd, which minimizes nothing that could be fitted again"}
    if "row_weights" in fit.attributes["inputs"]:
        return {"unavailable": "the fit has row weights"}
    fitted = _fit_options(fit)
    source, ranges, num_lags = columns_of(fitted, reader)
    held_out = fitted.held_out or HELD_OUT
    if not held_out_tail(source.num_rows, held_out).any():
        return {"unavailable": f"{source.num_rows} steps are too few to hold any out"}
    if not evidence["num_nonzero"]:
        return {"unavailable": "every γ of the fit is 0"}
    problem = LassoProblem(alpha_ratio=min(1.0, evidence["alpha"] / evidence["alpha_max"]), **penalty_of(fitted))
    options = SolverOptions(
        memory_bytes=parse_bytes(config.memory), max_passes=config.max_passes, seed=config.seed, held_out=held_out
    )
    with reporter.task("placebo fits", config.placebo + 1) as bar:
        fits = []
        for found in placebo_fits(source, problem, options, ranges, config.placebo):
            fits.append(found)
            bar.advance(1)
    real, placebos = fits[0], fits[1:]
    scores = np.array([f.r2_held_out for f in placebos])
    p_value = float((1 + np.count_nonzero(scores >= real.r2_held_out)) / (1 + len(scores)))
    return {
        "held_out_share": held_out,
        "alpha_ratio": problem.alpha_ratio,
        "r2_held_out": real.r2_held_out,
        "r2_held_out_common": common_gamma(source, num_lags, held_out),
        "num_nonzero": real.num_nonzero,
        "alpha_max": real.alpha_max,
        "permutations": len(placebos),
        "p_value": p_value,
        "permuted_r2_held_out": scores.tolist(),
        "permuted_num_nonzero": [f.num_nonzero for f in placebos],
        "permuted_alpha_max": [f.alpha_max for f in placebos],
    }


def _fit_options(fit: Fit) -> FitOptions:
    """The options that a fit was made with."""
    known = FitOptions.option_fields()
    return FitOptions(**{name: value for name, value in fit.attributes["config"].items() if name in known})


def _agreement(work: Work, store: Store, reader: RecordingReader, fit: Fit) -> dict[str, Any]:
    config: DiagnoseConfig = work.config
    if config.other is None and config.other_recording is None:
        return {"unavailable": "no --other recording to compare with"}
    other_store = store if config.other is None else open_store(config.other)
    other = other_store.recording(config.other_recording)
    if other.digests & reader.digests:
        raise UsageError("--other", expected="another recording", found="the same", remedy="record with another --seed")
    same_parameters = other.index.fingerprint == reader.index.fingerprint
    if not same_parameters or not np.array_equal(other.active, reader.active):
        raise MismatchError(
            f"recording {other.name} in {other_store.path}",
            expected="the same parameters, of which the same are recorded",
            found="others",
        )
    compared = other.read_fit(config.other_fit or config.fit)
    if compared.arrays["gamma"].shape != fit.arrays["gamma"].shape:
        raise MismatchError(
            f"fit {config.other_fit or config.fit} in {other_store.path}",
            expected=f"{fit.arrays['gamma'].shape} γ, of the same granularity and lags",
            found=f"{compared.arrays['gamma'].shape}",
        )
    work.inputs |= {"other_recording": other.digest, "other_fit": compared.digest}
    return {
        "columns": fit.arrays["gamma"].shape[1],
        "seeds": [reader.info.seed, other.info.seed],
        "same_start": reader.info.start_sha256 == other.info.start_sha256,
        **agreement(magnitudes(fit), magnitudes(compared)),
    }


def _interventions(work: Work, path: Path, reader: RecordingReader, fit: Fit, reporter: Reporter) -> dict[str, Any]:
    config: DiagnoseConfig = work.config
    if not config.interventions:
        return {"unavailable": "--interventions is 0"}
    if config.checkpoint is None and not path.exists():
        return {"unavailable": f"there is no {path}; name a --checkpoint"}
    checkpoint = work.load_checkpoint(path)
    remedy = "name the --checkpoint that the recording ended with"
    if checkpoint.info.index.fingerprint != reader.index.fingerprint:
        raise MismatchError(f"{path}", expected="the network of the recording", found="another", remedy=remedy)
    device, data, model, mask = set_up(checkpoint, path, config)
    if not reader.has_columns_of(mask.numpy()):
        expected = f"the mask that recording {reader.name} was made with"
        raise MismatchError(f"{path}", expected=expected, found="another", remedy=remedy)
    ended, own = reader.info.identity, checkpoint.info.identity
    if reader.end_weights:
        ended, own = reader.end_weights, checkpoint.weights_digest
    if ended and own != ended:
        reporter.warn(f"{path} isn't the checkpoint that recording {reader.name} ended with")
    samples = draw_samples(
        data,
        config.split,
        count=config.samples,
        batch_size=config.batch_size,
        device=device,
        seed=keyed_seed(config.seed, "interventions"),
        num_workers=config.num_workers,
    )
    found = intervene(
        model,
        # The loss whose change the fit explains.
        replace(data.task, label_smoothing=reader.info.label_smoothing),
        samples,
        reader,
        fit,
        count=config.interventions,
        group_share=config.group_share,
        seed=config.seed,
        reporter=reporter,
    )
    return {"split": config.split, "samples": sum(len(targets) for _, targets in samples), **found}
