"""``run``: the whole pipeline as one resumable command: pretrain, N × [train, record, fit, mask], posttrain, evaluate.

There is no fit for a criterion that reads none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from causalprune.base.files import make_directory, remove_file, withdrawn
from causalprune.base.locks import FileLock
from causalprune.base.paths import RunPaths, lock_path, progress_path
from causalprune.base.progress import SILENT, LabeledReporter, Reporter, logger
from causalprune.base.signals import StopRequest, stop_signals
from causalprune.commands._output import StageResult, Work, write_result
from causalprune.commands._plan import IterationPlan, PipelinePlan
from causalprune.commands._schedule import IterationStages, pipeline_schedule, run_stage
from causalprune.commands._training import TrainingResult
from causalprune.commands.apply_mask.command import apply_mask
from causalprune.commands.evaluate.command import evaluate, evaluation_outputs
from causalprune.commands.fit_gamma import fit_gamma
from causalprune.commands.forecast.command import forecast
from causalprune.commands.forecast.result import RunForecast
from causalprune.commands.names import settings_in_errors
from causalprune.commands.pipeline.beforehand import Beforehand
from causalprune.commands.pipeline.claim import claim, done_stages, require_claimable
from causalprune.commands.pipeline.discarding import IterationStore
from causalprune.commands.pipeline.reuse import load_reused, reuse, with_reused
from causalprune.commands.posttrain import posttrain
from causalprune.commands.pretrain import pretrain
from causalprune.commands.record.command import record
from causalprune.commands.repair import repair
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.run import RunConfig, recipe_changes
from causalprune.data.datasets import last_data_kept
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.parameters import ParameterIndex
from causalprune.models.prunable import log_not_prunable

_AS_PRUNED = (
    "nothing followed the last mask, neither a training nor a repair; `repair` costs seconds and no labels, and is "
    "worth more than any criterion"
)
"""docs/study.md has the measurement."""


@dataclass(frozen=True, kw_only=True)
class RunResult(StageResult):
    """Result of run.

    Attributes:
        iterations: For each iteration the metrics on the validation split before the mask, the sparsity, and, None
            where the criterion reads none, the rows recorded, and R² and nonzero γ of the fit.
        evaluation: See :class:`causalprune.commands.evaluate.command.EvaluateResult`.
        recipe: ``name`` of the recipe and ``changes``, options that were said instead of its own; None without one.
        stores: Trajectory stores in the folders of the iterations: how many are ``kept``, their ``bytes``, and how many
            were ``discarded``.
    """

    iterations: list[dict[str, Any]]
    evaluation: dict[str, Any]
    recipe: dict[str, Any] | None = None
    stores: dict[str, int] = field(default_factory=dict)


# Stages would read the same data one after the other, which for many image files takes longer than a stage.
@last_data_kept()
def run(config: RunConfig, reporter: Reporter = SILENT) -> RunResult | RunForecast:
    """Run the pipeline; after any interruption, the same call continues where it stopped and ends with the same bytes.

    Each stage knows by its output whether it is done, so this function only calls them in order. Iteration i works in
    ``iteration-00i/``; its training starts from the network that the previous iteration pruned.

    Args:
        config: The pipeline; ``config.set`` sets any option of any stage.
        reporter: Shows progress; silent when left out.

    Returns:
        The evaluation of the final network and a line on each iteration; of a dry run what it would take.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    config = with_reused(config)
    paths = RunPaths(config.run)
    outputs = {"checkpoint": paths.final, "result": paths.result("run")}
    work = Work(stage="run", config=config, outputs=outputs)
    # What --overwrite replaces is deleted before the first stage starts.
    plan = PipelinePlan(replace(config, overwrite=False))
    # All stages are configured before the first one starts, so that no typo shows after an hour.
    iterations = plan.iterations
    pretrain_config, posttrain_config = plan.pretrain(), plan.posttrain()
    # Its result isn't among the files that --overwrite deletes.
    evaluate_config = PipelinePlan(config).evaluate()
    with settings_in_errors("evaluate", plan.said("evaluate")):
        evaluation_outputs(evaluate_config)
    changes = recipe_changes(config.recipe, vars(config), config.set)
    if changes:
        logger.info("recipe %s, but %s", config.recipe, ", ".join(changes))
    if not config.overwrite:
        # Before anything is read; once more when nobody else can claim it.
        require_claimable(config, paths)
    # Before --overwrite deletes anything.
    dense = None if config.from_run is None else load_reused(config)
    beforehand = Beforehand(() if config.overwrite else done_stages(plan, paths))
    beforehand.require_machine(plan)
    beforehand.require(plan, dense)
    # Its data aren't needed any more.
    model = None if beforehand.start is None else beforehand.start[1].model
    del beforehand
    if config.dry_run:
        return forecast(config, reporter)
    make_directory(paths.root)
    schedule = pipeline_schedule(pretrain_config, iterations, posttrain_config, evaluate_config)
    with (
        FileLock(lock_path(paths.run_config)),
        stop_signals(config.stop_signals) as stop,
        reporter.overall(schedule) as shown,
        withdrawn((paths.run_config, progress_path(paths.run_config)), lock_path(paths.run_config)),
    ):
        claim(config, paths)
        if model is not None and not paths.pretrained.exists():
            # Once, before anything is trained; each stage says it of itself where it is called alone.
            log_not_prunable(model, ParameterIndex.from_model(model, iterations[0].mask.prune))
        del model
        begin = pretrain if dense is None else partial(_reuse, config, dense)
        first = run_stage(schedule, "pretrain", begin, pretrain_config, shown)
        stop.check()
        lines, all_done, stores = [], first.already_done, Counter[str]()
        for number, planned in enumerate(iterations, start=1):
            label = LabeledReporter(shown, f"{number}/{config.iterations} ")
            here = paths.iteration(number - 1)
            stages = IterationStages(schedule, number, config.iterations, label)
            line, said, done = _iterate(here, planned, stages, stop, discard=config.discard_stores)
            all_done = all_done and done
            work.warnings += [f"{number}/{config.iterations} {warning}" for warning in said]
            lines.append({"iteration": number, **line})
            size = IterationStore(here, planned).stored_bytes
            stores.update(kept=int(size > 0), bytes=size, discarded=int(here.discarded.exists()))
        final = run_stage(schedule, "posttrain", posttrain, posttrain_config, shown)
        stop.check()
        if not posttrain_config.epochs and not config.repair:
            work.warn(reporter, _AS_PRUNED)
        evaluated = run_stage(schedule, "evaluate", evaluate, evaluate_config, shown)
        work.warnings = [*first.warnings, *work.warnings, *_warnings(final, evaluated)]
        common = work.common(already_done=all_done and final.already_done)
        recipe = {"name": config.recipe, "changes": changes} if config.recipe else None
        result = RunResult(
            **common, iterations=lines, evaluation=evaluated.evaluation, recipe=recipe, stores=dict(stores)
        )
        write_result(outputs["result"], result.to_json())
        remove_file(progress_path(paths.run_config), missing_ok=True)
        return result


def _reuse(config: RunConfig, dense: Checkpoint, options: PretrainConfig, reporter: Reporter) -> TrainingResult:
    return reuse(config, options, dense, reporter)


def _iterate(
    paths: RunPaths, planned: IterationPlan, stages: IterationStages, stop: StopRequest, *, discard: bool
) -> tuple[dict[str, Any], list[str], bool]:
    """Train, record, fit, mask and repair; returns the line of the iteration, warnings, and whether it was done."""
    trained = stages.run("train", posttrain, planned.train)
    stop.check()
    store = IterationStore(paths, planned)
    left = store.left()
    if left is not None:
        stages.skip("record", "fit-gamma", "apply-mask", "repair")
        return left[0], [*trained.warnings, *left[1]], trained.already_done
    said = list(trained.warnings)
    lost = store.lost()
    if lost:
        stages.reporter.warn(lost)
        said.append(lost)
        store.forget()
    recorded = stages.run("record", record, planned.record) if planned.records else None
    stop.check()
    fitted = stages.run("fit-gamma", fit_gamma, planned.fit) if planned.fit else None
    evidence = {} if fitted is None else fitted.evidence
    masked = stages.run("apply-mask", apply_mask, planned.mask)
    stop.check()
    repaired = stages.run("repair", repair, planned.repair) if planned.repair else None
    stop.check()
    own = _warnings(recorded, fitted, masked, repaired)
    line = {
        "validation": trained.validation,
        "sparsity": masked.sparsity,
        **{name: getattr(recorded, name, None) for name in ("rows", "stored_bytes", "mean_loss_change")},
        **{name: evidence.get(name) for name in ("r2", "num_nonzero", "relative_gap")},
    }
    if discard and recorded is not None and (kept := store.discard(line, tuple(own))):
        stages.reporter.warn(kept)
        own.append(kept)
    # The mask of a recording that was lost may be there still, but the recording was work.
    return line, [*said, *own], masked.already_done and not lost


def _warnings(*results: StageResult | None) -> list[str]:
    return [warning for result in results if result is not None for warning in result.warnings]
