"""Names of the optimizers and learning-rate schedules; importing them loads no PyTorch."""

from __future__ import annotations

from importlib.util import find_spec

from causalprune.base.errors import missing_extra
from causalprune.base.registry import Registry, expected_name

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

LOGS = Registry(
    "log",
    {
        "csv": "causalprune.training.logs.csv_log:CsvLog",
        "tensorboard": "causalprune.training.logs.tensorboard_log:TensorBoardLog",
    },
)
"""Each is called with a folder and the step after which it goes on; see :class:`causalprune.training.logs.log.Log`."""

NO_LOG = "none"
"""What a stage is told that logs nothing."""


def check_log(value: str) -> str | None:
    """Check an option: None for a format, else the expected values.

    Raises:
        UsageError: The library of the format isn't installed.
    """
    if value not in (NO_LOG, *LOGS):
        return expected_name(value, (NO_LOG, *LOGS))
    if value == "tensorboard" and find_spec("tensorboard") is None:
        raise missing_extra("`log=tensorboard` needs TensorBoard", "tensorboard")
    return None


# The command line shows the words as the placeholder.
check_log.choices = (NO_LOG, *LOGS)  # type: ignore[attr-defined]
