"""Load a data set by its specification: read it, cut its splits, measure its normalization."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch

from causalprune.base.compute.inputs import Inputs, parts_of, several_shape
from causalprune.base.compute.shapes import InputShape, SeveralInputs, Tokens, shape_text
from causalprune.base.errors import UsageError
from causalprune.base.options import one_of, open_fraction, require
from causalprune.base.specs import CHANNELS, INTEGERS, DataSpec
from causalprune.data.images import ImageFiles
from causalprune.data.names import (
    DATASET_FORMS,
    DATASETS,
    TABLE_FORMS,
    TASK_CHOICES,
    TASKS,
    Augmentation,
    check_dataset,
    dataset_form,
    holds_arrays,
    is_factory,
)
from causalprune.data.normalization import (
    Normalization,
    SeveralNormalizations,
    several_statistics,
    training_statistics,
)
from causalprune.data.sources.factories import read_factory
from causalprune.data.splits import RawData, Split, holdout
from causalprune.data.tasks.task import Task

TEST_FRACTION = 0.2
"""Fraction cut off as the test split of a data set that has none."""

TEST_SEED = 0
"""Seed of that cut, so that the test split doesn't depend on the user's seed."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set, cut into its three splits.

    Attributes:
        spec: The specification it was loaded by.
        task: What the targets are, fitted to the training split.
        input_shape: Shape of one sample: (C, H, W) for an image, (F,) for a feature vector, tokens, or several inputs.
        train: Training split, without the validation split.
        validation: The published validation split; if there is none, cut from the published training data by
            ``spec.validation_fraction`` and ``spec.split_seed``.
        test: The published test split; if there is none, 20 % of the data, cut with a fixed seed.
        normalization: Normalization of the inputs, computed from ``train`` alone; None for tokens.
        augmentation: The training augmentation that ``auto`` stands for.
        fingerprint: SHA-256 of the arrays, or of the names and sizes of the files; independent of the splits.
        notes: What was decided about the data that the user didn't say, a line each.
        cut: Which of ``validation`` and ``test`` were cut at random from the training samples.
    """

    spec: DataSpec
    task: Task
    input_shape: InputShape
    train: Split
    validation: Split
    test: Split
    normalization: Normalization | SeveralNormalizations | None
    augmentation: Augmentation
    fingerprint: str
    notes: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()

    @property
    def num_outputs(self) -> int:
        """Number of classes, labels or quantities."""
        return self.task.num_outputs

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the outputs stand for, in their order; empty if they have no names."""
        return self.task.class_names

    def split(self, name: str) -> Split:
        """The split called ``train``, ``validation`` or ``test``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def summary(self) -> str:
        """Sizes of the splits, which of them were cut, and what becomes of the inputs, in one line."""
        sizes = ", ".join(f"{len(self.split(name)):,} {name}" for name in ("train", "validation", "test"))
        cut = f" ({' and '.join(self.cut)} cut at random)" if self.cut else ""
        done = "each standardized, unless it is looked up"
        if self.normalization is None:
            done = "looked up, not standardized"
        elif isinstance(self.normalization, Normalization):
            features = isinstance(self.input_shape, tuple) and len(self.input_shape) == 1
            done = f"standardized by {'feature' if features else 'channel'}"
        return f"{self.spec.name}: samples are {sizes}{cut}; inputs are {shape_text(self.input_shape)}, {done}"


def check_augmentation(augment: str, input_shape: InputShape) -> None:
    """Raise a UsageError if what can't be cropped, such as features and tokens, is to be augmented."""
    if isinstance(input_shape, SeveralInputs):
        what = "several inputs"
    else:
        what = "tokens" if isinstance(input_shape, Tokens) else "features" if len(input_shape) == 1 else ""
    if what and augment not in ("auto", "none"):
        raise UsageError("`augment`", expected=f"auto or none for {what}", found=augment)


def load_data(spec: DataSpec, *, trust_code: bool = True) -> DataSet:
    """Load a data set.

    A task that is a subclass of the data set's own one, with another loss for example, may be chosen in its place.
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
    # Only user code has to be trusted.
    trusted = trust_code or not is_factory(spec.name)
    if (spec, trusted) not in kept:
        kept.clear()
        data = _load(spec, trust_code=trust_code)
        # Later stages know the task, and ask for that; what whole numbers are matters only where there are such.
        same = [spec, replace(spec, task=data.task.name)]
        if not isinstance(data.input_shape, Tokens):
            same += [replace(each, integers="auto") for each in same]
        kept |= {(each, trusted): data for each in same}
    return kept[spec, trusted]


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
    require("`integers`", spec.integers, one_of(INTEGERS))
    if not is_factory(spec.name):
        require("`task`", spec.task, one_of(TASK_CHOICES))
    form = dataset_form(spec.name)
    # Sources are imported on demand, because scikit-learn and torchvision take seconds to import.
    if form is None and is_factory(spec.name):
        raw = read_factory(spec, trust_code=trust_code)
    else:
        raw = (DATASET_FORMS.load(form) if form else DATASETS.load(spec.name))(spec)
        if not holds_arrays(spec.name):
            _require_auto(spec, "channels", "integers")
    if spec.target and form not in TABLE_FORMS:
        raise UsageError("`target`", expected=f"nothing for {spec.name}, which isn't a table", found=spec.target)
    task = raw.task
    if spec.task not in ("auto", task.name):
        refined: type[Task] = TASKS.load(spec.task)
        if not issubclass(refined, type(task)):
            raise UsageError("`task`", expected=f"{task.name} for {spec.name}", found=spec.task)
        task = refined(task.class_names, task.num_outputs)
    what = f"data set {spec.name}"
    for name, split in (("training", raw.train), ("validation", raw.validation), ("test", raw.test)):
        if split is not None:
            task.check(split.targets, f"{what}, {name} split")
    rest, test = raw.train, raw.test
    if test is None:
        kept, cut = holdout(rest.targets, TEST_FRACTION, TEST_SEED, stratify=task.stratified, part="test")
        rest, test = rest.subset(kept), rest.subset(cut)
    train, validation = rest, raw.validation
    if validation is None:
        fraction, seed = spec.validation_fraction, spec.split_seed
        kept, held = holdout(rest.targets, fraction, seed, stratify=task.stratified, part="validation")
        train, validation = rest.subset(kept), rest.subset(held)
    input_shape = _sample_shape(raw, train, validation, test)
    check_augmentation(spec.augment, input_shape)
    return DataSet(
        spec=spec,
        task=task.fitted(train.targets, what),
        input_shape=input_shape,
        train=train,
        validation=validation,
        test=test,
        normalization=_normalization(raw, train.inputs, input_shape),
        augmentation=raw.augmentation,
        fingerprint=raw.fingerprint,
        notes=raw.notes,
        cut=tuple(name for name, split in (("validation", raw.validation), ("test", raw.test)) if split is None),
    )


def _require_auto(spec: DataSpec, *names: str) -> None:
    """Raise a UsageError if what is for arrays is said for another data set."""
    for name in names:
        found = getattr(spec, name)
        if found != "auto":
            raise UsageError(f"`{name}`", expected=f"auto for {spec.name}, which isn't an array", found=found)


def _sample_shape(raw: RawData, *splits: Split) -> InputShape:
    """The shape of a sample, and for tokens how many there are."""
    inputs = splits[0].inputs
    if isinstance(inputs, ImageFiles):
        return inputs.shape
    if not isinstance(inputs, torch.Tensor):
        return _several(raw, *splits)
    shape = tuple(inputs.shape[1:])
    if inputs.dtype != torch.int64:
        return shape
    tensors = [split.inputs for split in splits if isinstance(split.inputs, torch.Tensor)]
    assert isinstance(raw.vocabulary, int)
    return Tokens(shape, raw.vocabulary or 1 + max(int(tensor.max()) for tensor in tensors))


def _several(raw: RawData, *splits: Split) -> SeveralInputs:
    """The shapes of several inputs, with how many whole numbers there are in any of the splits."""
    every = [split.inputs for split in splits if not isinstance(split.inputs, ImageFiles)]
    said = raw.vocabulary if isinstance(raw.vocabulary, tuple) else (raw.vocabulary,) * len(parts_of(every[0]))
    seen = [
        max(least, *(int(part.max()) + 1 for part in parts)) if parts[0].dtype == torch.int64 else 0
        for least, parts in zip(said, zip(*map(parts_of, every), strict=True), strict=True)
    ]
    return several_shape(every[0], seen)


def _normalization(
    raw: RawData, inputs: Inputs | ImageFiles, shape: InputShape
) -> Normalization | SeveralNormalizations | None:
    if isinstance(shape, Tokens):
        return None
    if isinstance(inputs, torch.Tensor | ImageFiles):
        return raw.normalization or training_statistics(inputs)
    return several_statistics(inputs)
