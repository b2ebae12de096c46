"""Train a pruned network with its mask held."""

from __future__ import annotations

from dataclasses import replace

from causalprune.base.paths import RunPaths
from causalprune.base.progress import Reporter
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._network import set_up
from causalprune.commands._output import check_distinct
from causalprune.commands._training import TrainingResult, finished_training, train_stage
from causalprune.config.posttrain import PosttrainConfig
from causalprune.models.checkpoint import load_checkpoint


def posttrain(config: PosttrainConfig, reporter: Reporter | None = None) -> TrainingResult:
    """Train the network of a checkpoint on, every pruned weight at exactly 0.0, and write the best epoch.

    Args:
        config: Which checkpoint and how.
        reporter: Shows progress; silent when left out.

    Returns:
        The best epoch and its metrics on the validation split.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    reporter = reporter or Reporter()
    run = RunPaths(config.run)
    source = config.checkpoint or run.pruned
    path = config.output or run.final
    check_distinct(path, source)
    start = load_checkpoint(source, remedy="run `causalprune apply-mask` first, or name a --checkpoint")
    output = CheckpointOutput("posttrain", config, path, run.final, {"checkpoint": start.sha256})
    with output.exclusive():
        done = finished_training(output)
        if done is not None:
            return done
        device, data, model, mask = set_up(start, source, config)
        info = replace(start.info, position={}, metrics={})
        return train_stage(output, model, data, mask, info, device, reporter)
