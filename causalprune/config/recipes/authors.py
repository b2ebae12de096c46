"""The recipes of the method's authors: a whole run as one version of their paper or code has it.

Values are those of arXiv 2412.03035 and of the authors' public repository at the time, whose scripts and defaults are
the sources named here. What a recipe leaves out (model, data, sparsity, seed) is up to the user.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from causalprune.base.registry import expected_name


@dataclass(frozen=True)
class Choice:
    """An option that a recipe sets.

    Attributes:
        key: Its name as in a file of options: ``batch-size`` of run, or ``record.lr`` of a stage.
        value: Its value.
        source: Why, or where it comes from.
    """

    key: str
    value: Any
    source: str


@dataclass(frozen=True)
class Recipe:
    """What ``recipe`` sets.

    Attributes:
        name: Its name.
        summary: What it is, in one sentence.
        choices: The options, in the order of the pipeline.
    """

    name: str
    summary: str
    choices: tuple[Choice, ...]


_TRAINED = ("pretrain", "train", "posttrain")


def _each(stages: Iterable[str], source: str, **options: Any) -> tuple[Choice, ...]:
    return tuple(
        Choice(f"{stage}.{name.replace('_', '-')}", value, source)
        for stage in stages
        for name, value in options.items()
    )


_RATE = Choice("record.lr", 0.001, "recording optimizer: plain SGD at 1e-3, in every version")

_AS_THEY_ARE = _each(("train", "posttrain"), "the authors have neither warm-up nor clipping", warmup=0.0, clip_norm=0.0)

PAPER_V1 = Recipe(
    "paper-v1",
    "The paper's first version (September 2024): γ = 0 is pruned, and the L1 coefficient sets how much.",
    (
        Choice("pretrain-epochs", 10, "N_pre"),
        Choice("iterations", 10, "N_iter"),
        Choice("train-epochs", 0, "nothing is trained between mask and recording"),
        Choice("record-epochs", 10, "N_prune"),
        Choice("posttrain-epochs", 200, "at most so many"),
        Choice("batch-size", 512, "of training and recording"),
        *_each(_TRAINED, "Adam at 5e-4", optimizer="adam", lr=5e-4, weight_decay=0.0, lr_schedule="constant"),
        *_AS_THEY_ARE,
        Choice("posttrain.patience", 5, "early stop; the authors look at the training loss, here the validation split"),
        _RATE,
        Choice("record.loss-change", "next-batch", "ΔL is the loss of the next minibatch minus that of this one"),
        Choice("fit-gamma.solver", "sgd", "truncated gradient, one row at a time, step 1e-2/t^0.25"),
        Choice(
            "fit-gamma.preset",
            "paper-v1",
            "columns Δθ² as they are, about three passes, α = 1e-14 as for LeNet (AlexNet has 1e-17 to 1e-16, ResNet18 "
            "1e-16 to 1e-15, by the data set)",
        ),
        Choice("fit-gamma.scope", "layer", "one fit a layer"),
        Choice("criterion", "gamma", "|γ|, for whoever asks for a sparsity instead"),
        Choice("zero", True, "every weight with γ = 0 is pruned"),
        Choice("rewind", "pretrained", "the kept weights go back to the pretrained ones after each mask"),
        Choice("apply-mask.reset-batchnorm", True, "and batch normalization is reset"),
    ),
)


def _of_2025(name: str, summary: str, *, schedule: str, solver: str, penalty: str) -> Recipe:
    """What the two versions of 2025 share."""
    return Recipe(
        name,
        summary,
        (
            Choice("pretrain-epochs", 10, "num_pre_prune_epochs"),
            Choice("iterations", 10, "num_prune_iterations"),
            Choice("train-epochs", 10, "num_train_epochs_before_pruning"),
            Choice("record-epochs", 1, "num_prune_epochs"),
            Choice("posttrain-epochs", 300, "num_train_epochs"),
            Choice("batch-size", 256, "of training and recording"),
            *_each(
                _TRAINED,
                "SGD at 0.1 along a cosine, smoothed labels",
                optimizer="sgd",
                lr=0.1,
                momentum=0.9,
                nesterov=False,
                weight_decay=5e-4,
                lr_schedule="cosine",
                label_smoothing=0.1,
            ),
            *_AS_THEY_ARE,
            _RATE,
            Choice(
                "record.loss-change", "same-batch", "ΔL on the minibatch of the step; the fit divides it by its mean"
            ),
            Choice("record.label-smoothing", 0.1, "the loss of training is also the one that is recorded"),
            Choice("fit-gamma.solver", "sgd", solver),
            Choice("fit-gamma.preset", name, penalty),
            Choice("fit-gamma.scope", "global", "one fit over all layers"),
            Choice("criterion", "gamma", "the smallest |γ| are pruned to the target"),
            Choice("schedule", schedule, "how the target rises over the iterations"),
            Choice("rewind", "recording", "the kept weights go back to those at the start of the recording"),
        ),
    )


JUNE_2025 = _of_2025(
    "june-2025",
    "The authors' code of June 2025: the smallest |γ| are pruned to a target along a cubic schedule.",
    schedule="cubic",
    solver="truncated gradient, 16 rows at a time, step 0.1/t^0.1",
    penalty="columns Δθ²/η², α = 1e-3 over the number of prunable weights; the best pass counts",
)
OCT_2025 = _of_2025(
    "oct-2025",
    "The authors' code of October 2025: as june-2025, with a geometric schedule and a fit without L1.",
    schedule="geometric",
    solver="SGD at 0.1 with momentum 0.9, 16 rows at a time",
    penalty="columns Δθ²/η², weight decay 0.01, no L1; stops at R² > 0.95, and the best pass counts",
)

RECIPES = {recipe.name: recipe for recipe in (PAPER_V1, JUNE_2025, OCT_2025)}
"""The recipes by name."""


def check_recipe(name: str) -> str | None:
    """Check an option: None for a recipe's name or nothing, else the expected names."""
    return None if not name or name in RECIPES else expected_name(name, tuple(RECIPES))


# For the help and the completion of the shell.
check_recipe.choices = tuple(RECIPES)  # type: ignore[attr-defined]
