"""Load a data set by its specification: read it, cut its splits, measure its normalization."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from causalprune.base.errors import DataError, UsageError
from causalprune.base.specs import DataSpec, Task
from causalprune.data.names import DATASET_FORMS, DATASETS, Augmentation, check_dataset, dataset_form, is_factory
from causalprune.data.splits import Inputs, Normalization, RawData, Split, holdout, training_statistics

TEST_FRACTION = 0.2
"""Share that becomes the test split of a data set that has none."""

TEST_SEED = 0
"""Seed of that cut: the test split is the same for everybody, whatever seed the user gives."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set, cut into its three splits.

    Attributes:
        spec: What it was loaded by.
        task: Classification or regression.
        input_shape: Shape of a sample: (C, H, W) of an image, (F,) of a feature vector.
        num_outputs: Number of classes, at least 2; 1 for a regression.
        class_names: One per class, in label order; empty for a regression.
        train: Training split, without the validation split.
        validation: Cut from the published training data by ``spec.validation_fraction`` and ``spec.split_seed``.
        test: The published test split; where there is none, 20 % cut by a fixed seed.
        normalization: Of the inputs; computed from ``train`` alone.
        target_normalization: Of a regression's targets, likewise; None for a classification.
        augmentation: What the training augmentation ``auto`` means.
        fingerprint: SHA-256 of what identifies the data, however they are split: the arrays, or names and sizes of
            the files.
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

    @property
    def tabular(self) -> bool:
        """Whether samples are feature vectors."""
        return len(self.input_shape) == 1

    def split(self, name: str) -> Split:
        """The split called ``train``, ``validation`` or ``test``.

        Raises:
            UsageError: There is no such split.
        """
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise UsageError("split", expected="train, validation or test", found=repr(name))
        return splits[name]


def load_data(spec: DataSpec, *, trust_code: bool = True) -> DataSet:
    """Load a data set.

    ``imagefolder:DIR`` and ``npz:FILE`` are relative to ``spec.root``, if that is given. The splits of a
    classification are stratified.

    Args:
        spec: Which, and how its validation split is cut.
        trust_code: Whether ``package.module:factory`` may be imported and called.

    Raises:
        UsageError: The name, the fraction, the seed or the augmentation can't be used.
        DataError: Data are missing, empty, not finite, constant, or too few to be split; a label is out of range.
        CorruptError: A file is damaged, or the name is code and ``trust_code`` is False.
        StorageError: A file can't be read or written.
    """
    kept = _kept.get()
    if kept is None:
        return _load(spec, trust_code=trust_code)
    if (spec, trust_code) not in kept:
        kept.clear()
        kept[spec, trust_code] = _load(spec, trust_code=trust_code)
    return kept[spec, trust_code]


_kept: ContextVar[dict[tuple[DataSpec, bool], DataSet] | None] = ContextVar("kept data set", default=None)


@contextmanager
def last_data_kept() -> Iterator[None]:
    """Keep the data set that was loaded last in memory while the body runs, for stages that follow each other."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def _load(spec: DataSpec, *, trust_code: bool) -> DataSet:
    _check(spec)
    raw = _read(spec, trust_code=trust_code)
    what = f"data set {spec.name}"
    stratify = raw.task == "classification"
    for name, split in (("training", raw.train), ("test", raw.test)):
        if split is not None:
            _check_split(split, raw, f"{what}, {name} split")
    rest, test = raw.train, raw.test
    if test is None:
        kept, cut = holdout(rest.targets, TEST_FRACTION, TEST_SEED, stratify=stratify, part="test")
        rest, test = rest.subset(kept), rest.subset(cut)
    kept, held = holdout(rest.targets, spec.validation_fraction, spec.split_seed, stratify=stratify, part="validation")
    train, validation = rest.subset(kept), rest.subset(held)
    input_shape = _sample_shape(train.inputs)
    if len(input_shape) == 1 and spec.augment not in ("auto", "none"):
        raise UsageError("`augment`", expected="auto or none for features", found=spec.augment)
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
    )


def _check(spec: DataSpec) -> None:
    expected = check_dataset(spec.name)
    if expected:
        raise UsageError("`dataset`", expected=expected, found=repr(spec.name))
    fraction = spec.validation_fraction
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise UsageError("`validation_fraction`", expected="a number in (0, 1)", found=repr(fraction))
    if not isinstance(spec.split_seed, int):
        raise UsageError("`split_seed`", expected="a whole number", found=repr(spec.split_seed))


def _read(spec: DataSpec, *, trust_code: bool) -> RawData:
    # Each source is imported when it is asked for: scikit-learn and torchvision take seconds to import.
    form = dataset_form(spec.name)
    if form is not None:
        return DATASET_FORMS.load(form)(spec)
    if is_factory(spec.name):
        from causalprune.data.sources.factory import read_factory

        return read_factory(spec.name, trust_code=trust_code)
    return DATASETS.load(spec.name)(spec)


def _check_split(split: Split, raw: RawData, what: str) -> None:
    if len(split) == 0:
        raise DataError(what, expected="at least one sample", found="none")
    if raw.task == "regression":
        return
    classes = len(raw.class_names)
    if classes < 2:
        raise DataError(what, expected="at least 2 classes", found=str(classes))
    low, high = int(split.targets.min()), int(split.targets.max())
    if low < 0 or high >= classes:
        raise DataError(what, expected=f"labels in 0..{classes - 1}", found=f"the label {low if low < 0 else high}")


def _sample_shape(inputs: Inputs) -> tuple[int, ...]:
    return tuple(inputs.shape[1:]) if isinstance(inputs, torch.Tensor) else inputs.shape


def _target_statistics(targets: torch.Tensor, what: str) -> Normalization:
    if bool((targets == targets[0]).all()):
        raise DataError(f"targets of {what}", expected="values that vary", found=f"only {targets[0].item():g}")
    return training_statistics(targets[:, None])
