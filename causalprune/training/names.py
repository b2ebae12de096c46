"""Names of the optimizers and learning-rate schedules, known without importing PyTorch."""

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
"""Each is called with the parameters, and with the fields of TrainingOptions that it takes, such as ``lr``."""

LR_SCHEDULES = Registry(
    "learning-rate schedule",
    {
        "cosine": "causalprune.training.optimizers:cosine",
        "one-cycle": "causalprune.training.optimizers:one_cycle",
        "step": "causalprune.training.optimizers:step",
        "constant": "causalprune.training.optimizers:constant",
    },
)
"""Each is called with the optimizer, and of ``total_steps``, ``decay_points`` and the fields of TrainingOptions with
those that it takes."""
