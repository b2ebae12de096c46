"""Train a pruned network with its mask held."""

from __future__ import annotations

from dataclasses import replace

from causalprune.checkpoint import load_checkpoint
from causalprune.config import PosttrainConfig
from causalprune.paths import RunPaths
from causalprune.reporting import Reporter
from causalprune.runtime import make_deterministic, resolve_device
from causalprune.stages.artefacts import StageOutput, check_distinct, load_checkpoint_data, load_network
from causalprune.stages.training import TrainingResult, finished_training, train_stage


def posttrain(config: PosttrainConfig, reporter: Reporter | None = None) -> TrainingResult:
    """Train the network of a checkpoint on, every pruned weight at exactly 0.0, and write the best epoch.

    Args:
        config: Which checkpoint and how.
        reporter: Shows progress; silent when left out.

    Returns:
        The best epoch and its metrics on the validation split.

    Raises:
        CausalpruneError: See :mod:`causalprune.errors` for the family.
    """
    reporter = reporter or Reporter()
    run = RunPaths(config.run)
    source = config.checkpoint or run.pruned
    path = config.output or run.final
    check_distinct(path, source)
    start = load_checkpoint(source, remedy="run `causalprune apply-mask` first, or name a --checkpoint")
    output = StageOutput("posttrain", config, path, run.final, {"checkpoint": start.sha256})
    with output.exclusive():
        done = finished_training(output)
        if done is not None:
            return done
        device = resolve_device(config.device)
        if config.deterministic:
            make_deterministic()
        data = load_checkpoint_data(start.info, config, source)
        model, mask = load_network(start, source, device, trust_code=config.trust_code)
        info = replace(start.info, position={}, metrics={})
        return train_stage(output, model, data, mask, info, device, reporter)
