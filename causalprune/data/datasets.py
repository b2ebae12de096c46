"""Load a data set by its specification: read it, cut its splits, measure its normalization."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch

from causalprune.base.errors import DataError, UsageError
from causalprune.base.options import one_of, open_fraction, require
from causalprune.base.specs import CHANNELS, TASKS, DataSpec, Task
from causalprune.data.names import DATASET_FORMS, DATASETS, Augmentation, check_dataset, dataset_form, is_factory
from causalprune.data.normalization import Normalization, training_statistics
from causalprune.data.sources.arrays import read_factory
from causalprune.data.splits import RawData, Split, holdout

TEST_FRACTION = 0.2
"""Fraction cut off as the test split of a data set that has none."""

TEST_SEED = 0
"""Seed of that cut, so that the test split doesn't depend on the user's seed."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set, cut into its three splits.

    Attributes:
        spec: The specification it was loaded by.
        task: Classification or regression.
        input_shape: Shape of one sample: (C, H, W) for an image, (F,) for a feature vector.
        num_outputs: Number of classes, at least 2; 1 for a regression.
        class_names: One per class, in label order; empty for a regression.
        train: Training split, without the validation split.
        validation: The published validation split; if there is none, cut from the published training data by
            ``spec.validation_fraction`` and ``spec.split_seed``.
        test: The published test split; if there is none, 20 % of the data, cut with a fixed seed.
        normalization: Normalization of the inputs, computed from ``train`` alone.
        target_normalization: Normalization of the targets of a regression, likewise; None for a classification.
        augmentation: The training augmentation that ``auto`` stands for.
        fingerprint: SHA-256 of the arrays, or of the names and sizes of the files; independent of the splits.
        notes: What was decided about the data that the user didn't say, a line each.
    """

    spec: DataSpec
    task: Task
    input_shape: tuple[int, ...]
    num_outputs: int
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    normalization: Normalization
    target_normalization: Normalization | None
    augmentation: Augmentation
    fingerprint: str
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """The split called ``train``, ``validation`` or ``test``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def check_augmentation(augment: str, input_shape: tuple[int, ...]) -> None:
    """Raise a UsageError if features, which can't be cropped, are to be augmented."""
    if len(input_shape) == 1 and augment not in ("auto", "none"):
        raise UsageError("`augment`", expected="auto or none for features", found=augment)


def load_data(spec: DataSpec, *, trust_code: bool = True) -> DataSet:
    """Load a data set.

    ``imagefolder:DIR`` and ``npz:FILE`` are relative to ``spec.root``, if it is given. The splits of a classification
    are stratified.

    Args:
        spec: The data set, and how its validation split is cut.
        trust_code: Whether a ``package.module:factory`` may be imported and called.

    Raises:
        UsageError: The name, the fraction, the augmentation, the task or the channels can't be used.
        DataError: Data are missing, empty, not finite, constant or too few to split, or a label is out of range.
        CorruptError: A file is damaged, or the data set is user code and ``trust_code`` is False.
        StorageError: A file can't be read or written.
    """
    # A new dictionary, which nobody keeps, outside :func:`last_data_kept`.
    kept = _kept.get({})
    if (spec, trust_code) not in kept:
        kept.clear()
        data = _load(spec, trust_code=trust_code)
        # Later stages know the task, and ask for that.
        for same in (spec, replace(spec, task=data.task)):
            kept[same, trust_code] = data
    return kept[spec, trust_code]


_kept: ContextVar[dict[tuple[DataSpec, bool], DataSet]] = ContextVar("kept data set")


@contextmanager
def last_data_kept() -> Iterator[None]:
    """Keep the most recently loaded data set in memory while the body runs, for stages that follow each other."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def _load(spec: DataSpec, *, trust_code: bool) -> DataSet:
    require("`dataset`", spec.name, check_dataset)
    require("`validation_fraction`", spec.validation_fraction, open_fraction)
    require("`channels`", spec.channels, one_of(CHANNELS))
    require("`task`", spec.task, one_of(TASKS))
    form = dataset_form(spec.name)
    # Sources are imported on demand, because scikit-learn and torchvision take seconds to import.
    if form is None and is_factory(spec.name):
        raw = read_factory(spec, trust_code=trust_code)
    else:
        raw = (DATASET_FORMS.load(form) if form else DATASETS.load(spec.name))(spec)
        if spec.channels != "auto" and form != "npz:FILE":
            raise UsageError("`channels`", expected=f"auto for {spec.name}, which isn't an array", found=spec.channels)
    if spec.task not in ("auto", raw.task):
        raise UsageError("`task`", expected=f"{raw.task} for {spec.name}", found=spec.task)
    what = f"data set {spec.name}"
    stratify = raw.task == "classification"
    for name, split in (("training", raw.train), ("validation", raw.validation), ("test", raw.test)):
        if split is not None:
            _check_split(split, raw, f"{what}, {name} split")
    rest, test = raw.train, raw.test
    if test is None:
        kept, cut = holdout(rest.targets, TEST_FRACTION, TEST_SEED, stratify=stratify, part="test")
        rest, test = rest.subset(kept), rest.subset(cut)
    train, validation = rest, raw.validation
    if validation is None:
        fraction, seed = spec.validation_fraction, spec.split_seed
        kept, held = holdout(rest.targets, fraction, seed, stratify=stratify, part="validation")
        train, validation = rest.subset(kept), rest.subset(held)
    input_shape = tuple(train.inputs.shape[1:]) if isinstance(train.inputs, torch.Tensor) else train.inputs.shape
    check_augmentation(spec.augment, input_shape)
    return DataSet(
        spec=spec,
        task=raw.task,
        input_shape=input_shape,
        num_outputs=len(raw.class_names) if stratify else 1,
        class_names=raw.class_names,
        train=train,
        validation=validation,
        test=test,
        normalization=raw.normalization or training_statistics(train.inputs),
        target_normalization=None if stratify else _target_statistics(train.targets, what),
        augmentation=raw.augmentation,
        fingerprint=raw.fingerprint,
        notes=raw.notes,
    )


def _check_split(split: Split, raw: RawData, what: str) -> None:
    if raw.task == "regression":
        return
    classes = len(raw.class_names)
    if classes < 2:
        raise DataError(what, expected="at least 2 classes", found=str(classes))
    low, high = int(split.targets.min()), int(split.targets.max())
    if low < 0 or high >= classes:
        raise DataError(what, expected=f"labels in 0..{classes - 1}", found=f"the label {low if low < 0 else high}")


def _target_statistics(targets: torch.Tensor, what: str) -> Normalization:
    if bool((targets == targets[0]).all()):
        raise DataError(f"targets of {what}", expected="values that vary", found=f"only {targets[0].item():g}")
    return training_statistics(targets[:, None])
