"""The names of the data sets and augmentations, available without importing PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from causalprune.base.registry import Registry, expected_name

Augmentation = Literal["none", "crop", "crop-flip"]

AUGMENTATIONS: tuple[str, ...] = ("auto", *get_args(Augmentation))
"""The choices of the option; ``auto`` is the augmentation that is usual for the data set in the literature."""

DATASETS = Registry(
    "data set",
    {
        "digits": "causalprune.data.sources.published:digits",
        "breast-cancer": "causalprune.data.sources.published:breast_cancer",
        "diabetes": "causalprune.data.sources.published:diabetes",
        "topics": "causalprune.data.sources.texts:topics",
        "mnist": "causalprune.data.sources.published:mnist",
        "fashion-mnist": "causalprune.data.sources.published:fashion_mnist",
        "cifar10": "causalprune.data.sources.published:cifar10",
        "cifar100": "causalprune.data.sources.published:cifar100",
        "tiny-imagenet": "causalprune.data.sources.folders:tiny_imagenet",
        "imagenet": "causalprune.data.sources.folders:imagenet",
    },
)
"""The data sets that have a name; each is a function that takes a DataSpec and returns RawData."""

TASKS = Registry(
    "task",
    {
        "classification": "causalprune.data.tasks.classification:Classification",
        "regression": "causalprune.data.tasks.regression:Regression",
        "multi-label": "causalprune.data.tasks.multi_label:MultiLabel",
        "segmentation": "causalprune.data.tasks.segmentation:Segmentation",
        "next-token": "causalprune.data.tasks.next_token:NextToken",
    },
)
"""What the outputs of a network mean; each is a :class:`causalprune.data.tasks.task.Task`."""

TASK_CHOICES = ("auto", *TASKS)
"""The choices of the option; ``auto`` decides by the dtype and the values of the targets."""

TABLES = ("breast-cancer", "diabetes")
"""Those of them whose samples are features."""

TEXTS = ("topics",)
"""Those whose samples are tokens; the others hold images."""

DATASET_FORMS = Registry(
    "form of data set",
    {
        "imagefolder:DIR": "causalprune.data.sources.folders:image_folder",
        "npz:FILE": "causalprune.data.sources.npz:npz",
        "csv:FILE": "causalprune.data.sources.tables:csv",
        "parquet:FILE": "causalprune.data.sources.tables:parquet",
    },
)
"""The same for data sets that are named by a prefix and their location."""

TABLE_FORMS = ("csv:FILE", "parquet:FILE")
"""Those that have columns."""

_FACTORY = "package.module:factory"


def dataset_form(name: str) -> str | None:
    """The key of :data:`DATASET_FORMS` whose prefix ``name`` has, or None."""
    return next((form for form in DATASET_FORMS if name.startswith(form.partition(":")[0] + ":")), None)


def holds_arrays(name: str) -> bool:
    """Whether a data set is arrays of the user, in a file or from a function."""
    form = dataset_form(name)
    return form == "npz:FILE" or is_factory(name)


def is_own_data(name: str) -> bool:
    """Whether a data set is the user's, in files or from a function, and not a published one."""
    return dataset_form(name) is not None or is_factory(name)


def is_factory(name: str) -> bool:
    """Whether ``name`` has the form ``package.module:factory``."""
    module, colon, function = name.partition(":")
    if not colon or dataset_form(name):
        return False
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def check_dataset(name: str) -> str | None:
    """Check an option: None for a known data set or one of the other forms, else the expected values."""
    prefix, _, path = name.partition(":")
    if dataset_form(name):
        return None if path else f"a path after {prefix}:"
    if name in DATASETS or is_factory(name):
        return None
    others = (*DATASET_FORMS, _FACTORY)
    return expected_name(name.lower().replace("_", "-"), DATASETS.choices, others=others, near=_with_prefix(name))


def _with_prefix(name: str) -> str:
    """The form that says how to read a file or a folder, for one that is named alone; empty for anything else."""
    prefix = Path(name).suffix.lower().removeprefix(".")
    if f"{prefix}:FILE" in DATASET_FORMS:
        return f"{prefix}:{name}"
    return f"imagefolder:{name}" if name and Path(name).is_dir() else ""


# For the completion of the shell.
check_dataset.names = lambda: DATASETS.choices  # type: ignore[attr-defined]
