"""Names of the data sets and what is known of each without PyTorch, for ``--help`` and for checking options."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from causalprune.specs import Task

Augmentation = Literal["none", "crop", "crop-flip"]

AUGMENTATIONS = ("auto", "none", "crop", "crop-flip")

FOLDER_PREFIX = "imagefolder:"
ARRAYS_PREFIX = "npz:"


@dataclass(frozen=True)
class DatasetTraits:
    """What a data set is.

    Attributes:
        summary: One line for people.
        task: Classification or regression.
        tabular: Samples are feature vectors, not images.
        needs_root: Its files lie under ``--data-root``.
        downloadable: ``--download`` can fetch them.
        augmentation: What ``--augment auto`` means: what the data set's literature does.
    """

    summary: str
    task: Task = "classification"
    tabular: bool = False
    needs_root: bool = False
    downloadable: bool = False
    augmentation: Augmentation = "none"


DATASETS: dict[str, DatasetTraits] = {
    "digits": DatasetTraits("1,797 handwritten digits, 8×8 gray, bundled with scikit-learn"),
    "breast-cancer": DatasetTraits("569 tumours, 30 features, 2 classes, bundled with scikit-learn", tabular=True),
    "diabetes": DatasetTraits(
        "442 patients, 10 features, progression after a year, bundled with scikit-learn",
        task="regression",
        tabular=True,
    ),
    "mnist": DatasetTraits("70,000 handwritten digits, 28×28 gray", needs_root=True, downloadable=True),
    "fashion-mnist": DatasetTraits(
        "70,000 articles of clothing, 28×28 gray", needs_root=True, downloadable=True, augmentation="crop-flip"
    ),
    "cifar10": DatasetTraits(
        "60,000 photographs, 32×32, 10 classes", needs_root=True, downloadable=True, augmentation="crop-flip"
    ),
    "cifar100": DatasetTraits(
        "60,000 photographs, 32×32, 100 classes", needs_root=True, downloadable=True, augmentation="crop-flip"
    ),
    "tiny-imagenet": DatasetTraits(
        "110,000 photographs, 64×64, 200 classes, in the published folder layout",
        needs_root=True,
        augmentation="crop-flip",
    ),
    "imagenet": DatasetTraits(
        "1.3 million photographs, 1000 classes, as folders train/ and val/", needs_root=True, augmentation="crop-flip"
    ),
}
"""The data sets with a name of their own."""

DATASET_NAMES: tuple[str, ...] = tuple(DATASETS)

OTHER_FORMS: tuple[str, ...] = (f"{FOLDER_PREFIX}DIR", f"{ARRAYS_PREFIX}FILE", "package.module:factory")
"""How a data set without a name of its own is given."""


def is_factory(name: str) -> bool:
    """Whether ``name`` has the form ``package.module:factory``."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def check_dataset(name: str) -> str | None:
    """Check for :func:`causalprune.options.option`: a known data set, or one of the other forms."""
    if name in DATASETS:
        return None
    for prefix in (FOLDER_PREFIX, ARRAYS_PREFIX):
        if name.startswith(prefix):
            return None if len(name) > len(prefix) else f"a path after {prefix}"
    if is_factory(name):
        return None
    near = difflib.get_close_matches(name.lower().replace("_", "-"), DATASET_NAMES, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return "one of " + ", ".join(DATASET_NAMES + OTHER_FORMS) + hint
