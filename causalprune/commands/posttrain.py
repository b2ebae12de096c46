"""``posttrain``: train a pruned network with its mask held."""

from __future__ import annotations

from dataclasses import replace

from causalprune.base.paths import RunPaths
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._network import give_statistics, load_network, needs_statistics, set_up
from causalprune.commands._output import check_pair_distinct
from causalprune.commands._training import TrainingResult, train_checkpoint, training_result
from causalprune.config.posttrain import PosttrainConfig
from causalprune.training.distillation import Distillation
from causalprune.training.loop import EVALUATED


def posttrain(config: PosttrainConfig, reporter: Reporter = SILENT) -> TrainingResult:
    """Continue to train the network of a checkpoint, with every pruned weight at exactly 0.0; write the best epoch.

    Without any epoch, the running statistics of batch normalization are re-estimated if a mask came last.

    Args:
        config: Which checkpoint and how; the dense network is read only if something is distilled from it.
        reporter: Shows progress; silent when left out.

    Returns:
        The best epoch and its metrics on the validation split.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    run = RunPaths(config.run)
    source = config.checkpoint or run.pruned
    output = CheckpointOutput(stage="posttrain", config=config, default=run.final)
    original = config.dense or run.dense
    check_pair_distinct(output.path, source, *([original] if config.distill else []))
    start = output.load_checkpoint(source, made_by="apply-mask")
    whole = output.load_dense(original, start, source, or_itself=True) if config.distill else None
    with output.exclusive():
        done = output.finished()
        if done is not None:
            return output.publish(training_result(output, done, reporter, already_done=True))
        device, data, model, mask = set_up(start, source, config)
        distillation = None
        if whole is not None:
            dense, _ = load_network(whole, original, device, trust_code=config.trust_code)
            distillation = Distillation(dense, config.distill)
        info = replace(start.info, position={}, metrics={})
        if config.epochs == 0 and needs_statistics(model, start.info):
            samples = give_statistics(
                model, data, device, config, count=config.reestimate_batchnorm, batch_size=EVALUATED
            )
            metrics = {"batchnorm_samples": samples} if samples else {"stale_statistics": True}
            info = replace(info, metrics=metrics)
        return train_checkpoint(output, model, data, mask, info, device, reporter, distillation)
