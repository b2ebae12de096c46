"""Options of ``run``."""

from __future__ import annotations

from dataclasses import dataclass

from causalprune.config.shared import (
    ComputeOptions,
    DataOptions,
    ModelOptions,
)
from causalprune.options import at_least, fraction, one_of, option
from causalprune.pruning.names import REWINDS, SCOPES, SPARSITY_SCHEDULES, check_criterion, check_mask_granularity
from causalprune.quantities import check_interval


@dataclass(frozen=True, kw_only=True)
class RunConfig(ModelOptions, DataOptions, ComputeOptions):
    """The whole pipeline: pretrain, then N times train, record, fit and mask, then posttrain and evaluate.

    γ is fitted only for a criterion that reads it.
    """

    iterations: int = option(5, "Pruning iterations.", check=at_least(1))
    sparsity: float = option(0.9, "Fraction of prunable weights that are zero at the end.", check=fraction)
    schedule: str = option("cubic", "How the sparsity rises over the iterations.", check=SPARSITY_SCHEDULES)
    criterion: str = option("effect", "What orders the parameters; see apply-mask --help.", check=check_criterion)
    scope: str = option("global", "Rank over all layers together, or each layer by itself.", check=one_of(SCOPES))
    granularity: str = option("parameter", "Prune single weights or whole groups.", check=check_mask_granularity)
    rewind: str = option("none", "Weights after each mask; see apply-mask --help.", check=one_of(REWINDS))
    pretrain_epochs: int = option(30, "Epochs of pretraining.", check=at_least(0))
    train_epochs: int = option(2, "Epochs of training before each recording.", check=at_least(0))
    record_epochs: int = option(5, "Epochs of each recording.", check=at_least(1))
    posttrain_epochs: int = option(30, "Epochs of training after the last mask.", check=at_least(0))
    batch_size: int = option(64, "Minibatch size of training and recording.", check=at_least(1))
    checkpoint_every: str = option(
        "5min", "How often to save for a resume: 500steps, 10min or never.", check=check_interval, identifies=False
    )
    set: tuple[str, ...] = option(
        (), "Any option of one stage, such as record.lr=0.02; may be repeated.", metavar="STAGE.OPTION=VALUE"
    )
