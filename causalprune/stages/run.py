"""The whole pipeline as one resumable command: pretrain, N × [train, record, fit, mask], posttrain, evaluate."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from causalprune.config import RunConfig
from causalprune.errors import MismatchError
from causalprune.files import make_directory, read_json, write_json
from causalprune.locking import FileLock
from causalprune.paths import RunPaths, lock_path
from causalprune.plan import PipelinePlan
from causalprune.reporting import LabelledReporter, Reporter
from causalprune.stages.apply_mask import apply_mask
from causalprune.stages.artefacts import StageResult
from causalprune.stages.evaluate import EvaluateResult, evaluate
from causalprune.stages.fit_gamma import fit_gamma
from causalprune.stages.posttrain import posttrain
from causalprune.stages.pretrain import pretrain
from causalprune.stages.record import record


@dataclass(frozen=True, kw_only=True)
class RunResult(StageResult):
    """Result of run.

    Attributes:
        iterations: Metrics on the validation split before the recording, rows recorded, R² of the fit, nonzero γ and
            sparsity of each iteration.
        evaluation: See :class:`causalprune.stages.evaluate.EvaluateResult`.
    """

    iterations: list[dict[str, Any]]
    evaluation: dict[str, Any]


def run(config: RunConfig, reporter: Reporter | None = None) -> RunResult:
    """Run the pipeline; started again after any interruption, it goes on where it stopped and ends with the same bytes.

    Every stage knows by its output whether it is done, so this function only calls them in order. Iteration i lies in
    ``iteration-00i/``; its training starts from the network that the iteration before left.

    Args:
        config: The pipeline; ``config.set`` reaches every option of every stage.
        reporter: Shows progress; silent when left out.

    Returns:
        The evaluation of the final network and a line on each iteration.

    Raises:
        CausalpruneError: See :mod:`causalprune.errors` for the family.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    plan = PipelinePlan(config)
    paths = RunPaths(config.run)
    # Every stage is configured before the first one starts: a typo must not show after an hour.
    iterations = [plan.iteration(number) for number in range(config.iterations)]
    pretrain_config, posttrain_config, evaluate_config = plan.pretrain(), plan.posttrain(), plan.evaluate()
    make_directory(paths.root)
    with FileLock(lock_path(paths.run_config), break_lock=config.break_lock):
        _claim(config, paths)
        first = pretrain(pretrain_config, reporter)
        lines, all_done = [], first.already_done
        for number, (train_config, record_config, fit_config, mask_config) in enumerate(iterations, start=1):
            label = LabelledReporter(reporter, f"{number}/{config.iterations} ")
            trained = posttrain(train_config, label)
            recorded = record(record_config, label)
            fitted = fit_gamma(fit_config, label)
            masked = apply_mask(mask_config, label)
            all_done = all_done and masked.already_done
            lines.append(
                {
                    "iteration": number,
                    "validation": trained.validation,
                    "sparsity": masked.sparsity,
                    "rows": recorded.rows,
                    "stored_bytes": recorded.stored_bytes,
                    "mean_loss_change": recorded.mean_loss_change,
                    "r2": fitted.evidence["r2"],
                    "num_nonzero": fitted.evidence["num_nonzero"],
                    "relative_gap": fitted.evidence["relative_gap"],
                }
            )
        final = posttrain(posttrain_config, reporter)
        evaluated: EvaluateResult = evaluate(evaluate_config, reporter)
        result = RunResult(
            stage="run",
            inputs={},
            outputs={"checkpoint": str(paths.final), "result": str(paths.result("run"))},
            already_done=all_done and final.already_done,
            seconds=time.monotonic() - started,
            iterations=lines,
            evaluation=evaluated.evaluation,
        )
        write_json(paths.result("run"), result.to_json())
        return result


def _claim(config: RunConfig, paths: RunPaths) -> None:
    """Bind the run directory to this configuration.

    Raises:
        MismatchError: It belongs to another one.
    """
    mine = json.loads(json.dumps(config.identifying()))
    if paths.run_config.exists() and not config.overwrite:
        theirs = read_json(paths.run_config)
        changed = [k for k in mine if not isinstance(theirs, dict) or theirs.get(k) != mine[k]]
        if changed:
            found = ", ".join(f"{k}={theirs.get(k)!r}" if isinstance(theirs, dict) else k for k in changed[:3])
            raise MismatchError(
                f"{paths.root}",
                expected="a run of this very configuration",
                found=f"one with {found}",
                remedy="pass --overwrite to start anew, or choose another --run",
            )
        return
    write_json(paths.run_config, mine)
