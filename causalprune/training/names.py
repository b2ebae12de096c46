"""Names of the optimizers and learning-rate schedules; importing them loads no PyTorch."""

from __future__ import annotations

from causalprune.base.registry import Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "sgd": "causalprune.training.optimizers:sgd",
        "adam": "torch.optim:Adam",
        "adamw": "torch.optim:AdamW",
    },
)
"""Each is called with the list of parameters and, as far as its signature has them, the fields of TrainingOptions."""

LR_SCHEDULES = Registry(
    "learning-rate schedule",
    {
        "cosine": "causalprune.training.optimizers:cosine",
        "one-cycle": "causalprune.training.optimizers:one_cycle",
        "step": "causalprune.training.optimizers:step",
        "constant": "causalprune.training.optimizers:constant",
    },
)
"""Each is called with the optimizer and, as far as its signature has them, ``total_steps``, ``decay_points`` and the
fields of TrainingOptions."""
