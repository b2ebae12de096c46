"""The stages of a pipeline as steps of one schedule, for its progress and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from causalprune.base.errors import InterruptedStage
from causalprune.base.options import Options
from causalprune.base.progress import Reporter, warnings_rewritten
from causalprune.base.progress.schedule import PlannedStep, Schedule
from causalprune.base.signals import note_saved
from causalprune.commands._output import StageResult
from causalprune.commands._plan import IterationPlan
from causalprune.commands.names import in_errors, with_settings
from causalprune.config.posttrain import PosttrainConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig

C = TypeVar("C", bound=Options)
R = TypeVar("R", bound=StageResult)

_RECORDING, _OTHER = 3.0, 1.0
"""What an epoch of a recording, and any stage without epochs, may cost in epochs of training, until one was measured.

Not known before: it depends on the network, its data and the machine.
"""


def planned_step(label: str, stage: str, options: Options) -> PlannedStep:
    """A stage as a step of a schedule: what it may cost in epochs of training, and what it is as fast as.

    Args:
        label: What it is called while it runs.
        stage: Name of the command.
        options: Its configuration.
    """
    if isinstance(options, PretrainConfig | PosttrainConfig):
        distilled = getattr(options, "distill", 0.0) > 0
        # With another network there is a second forward pass for each one.
        return PlannedStep(label, f"train {options.batch_size} {distilled}", options.epochs * (1.5 if distilled else 1))
    if isinstance(options, RecordConfig):
        return PlannedStep(label, stage, _RECORDING * options.epochs)
    return PlannedStep(label, stage, _OTHER)


def run_stage(schedule: Schedule, label: str, command: Callable[[C, Reporter], R], options: C, reporter: Reporter) -> R:
    """Run a stage as a step of a schedule.

    Args:
        schedule: The steps.
        label: That of the step.
        command: What to call.
        options: Its configuration.
        reporter: What it reports to, as :meth:`Reporter.overall` yields it.

    Raises:
        InterruptedStage: A signal stopped the stage; it names the step.
        CausalpruneError: Whatever the stage raises.
    """
    stage = label.rpartition(" · ")[2]
    with schedule.step(label):
        try:
            result = as_part(stage, lambda: command(options, reporter))
        except InterruptedStage as stop:
            raise stop.within(label) from None
        if result.already_done:
            schedule.skip()
        else:
            note_saved()
    return result


def as_part(
    stage: str, call: Callable[[], R], labeled: Callable[[str], str] = str, reworded: Callable[[str], str] = str
) -> R:
    """Run a stage of ``run`` or ``sweep``: its warnings and errors name options as these commands take them.

    Args:
        stage: Its name in :data:`causalprune.config.run.RUN_STAGES`.
        call: Runs it.
        labeled: Says in front of a warning of which part of the work it is.
        reworded: What the command knows better than its stages, said of warnings and errors.

    Raises:
        CausalpruneError: Whatever the stage raises.
    """

    def typed(message: str) -> str:
        return reworded(with_settings(message, stage))

    with warnings_rewritten(lambda message: typed(labeled(message))), in_errors(typed):
        result = call()
    return replace(result, warnings=tuple(map(typed, result.warnings)))


@dataclass(frozen=True)
class IterationStages:
    """The stages of one iteration, as steps of a schedule.

    Attributes:
        schedule: That of the whole run.
        number: Of the iteration, from 1.
        iterations: How many there are.
        reporter: What the stages report to.
    """

    schedule: Schedule
    number: int
    iterations: int
    reporter: Reporter

    def run(self, stage: str, command: Callable[[C, Reporter], R], options: C) -> R:
        """Run one."""
        label = in_iteration(self.number, self.iterations, stage)
        return run_stage(self.schedule, label, command, options, self.reporter)

    def skip(self, *stages: str) -> None:
        """Note that they were done before."""
        for stage in stages:
            self.schedule.skip(in_iteration(self.number, self.iterations, stage))


def in_iteration(number: int, iterations: int, stage: str) -> str:
    """What a stage of an iteration (from 1) is called while it runs."""
    return f"prune {number}/{iterations} · {stage}"


def pipeline_schedule(
    pretrain: PretrainConfig, iterations: Sequence[IterationPlan], posttrain: PosttrainConfig, evaluate: Options
) -> Schedule:
    """The steps of ``run``, by their labels."""
    steps = [planned_step("pretrain", "pretrain", pretrain)]
    for number, plan in enumerate(iterations, start=1):
        steps += [
            planned_step(in_iteration(number, len(iterations), stage), stage, options)
            for stage, options in plan.stages()
        ]
    steps += [
        planned_step("posttrain", "posttrain", posttrain),
        planned_step("evaluate", "evaluate", evaluate),
    ]
    return Schedule("run", {step.label: step for step in steps})
