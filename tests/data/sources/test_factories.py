"""What a function of the user may return for data: the same samples in every form are the same data set."""

import sys
import types

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from causalprune.base.compute.shapes import Tokens
from causalprune.base.errors import DataError
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.data.tasks.regression import Regression
from causalprune.data.tasks.task import Task

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


class Pairs(Dataset):
    """One that never ends an iteration by itself."""

    def __init__(self, inputs=X, targets=Y, names=()):
        self.inputs, self.targets, self.names = inputs, targets, names

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, number):
        pair = self.inputs[number % 60], self.targets[number % 60]
        return dict(zip(self.names, pair, strict=True)) if self.names else pair


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Pairs()[i] for i in range(60))


class Shaken(Pairs):
    def __getitem__(self, number):
        inputs, targets = super().__getitem__(number)
        return inputs + torch.randn(4), targets


@pytest.fixture
def load(monkeypatch):
    def load(made, **spec):
        module = types.ModuleType("data_of_a_user")
        module.make = made if callable(made) else lambda: made
        monkeypatch.setitem(sys.modules, "data_of_a_user", module)
        return load_data(DataSpec(name="data_of_a_user:make", **spec))

    return load


@pytest.mark.parametrize(
    "made",
    [
        TensorDataset(X, Y),
        Pairs(),
        Pairs(names=("features", "labels")),
        Stream(),
        DataLoader(Pairs(), batch_size=7, shuffle=True),
        DataLoader(Pairs(), collate_fn=lambda rows: tuple(map(torch.stack, zip(*rows, strict=True)))),
        {"train": Pairs()},
    ],
)
def test_samples_are_what_their_arrays_are(load, made):
    assert load(made).fingerprint == load({"x": X, "y": Y}).fingerprint


def test_several_are_the_splits(load):
    parts = [Pairs(X[:30], Y[:30]), Pairs(X[30:42], Y[30:42]), Pairs(X[42:], Y[42:])]
    data = load(tuple(parts))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [30, 12, 18]
    assert data.test.inputs.equal(X[42:])
    assert len(load((parts[0], parts[2])).test) == 18
    assert load(dict(zip(("train", "val", "test"), parts, strict=True))).fingerprint == data.fingerprint


def test_chance_is_the_same_at_every_reading(load):
    state = torch.get_rng_state()
    assert load(Shaken()).fingerprint == load(Shaken()).fingerprint
    assert torch.get_rng_state().equal(state)


def test_whole_numbers_stay_what_they_are(load):
    tokens = torch.randint(20, (60, 5), generator=torch.Generator().manual_seed(1))
    tokens[-1, -1] = 19
    data = load(Pairs(tokens))
    assert (data.input_shape, data.normalization) == (Tokens((5,), 20), None)
    assert data.train.inputs.dtype == torch.int64
    assert load({"x": tokens, "y": Y, "vocabulary": 30}).input_shape == Tokens((5,), 30)
    for kept in (torch.int32, torch.uint16, torch.uint32, torch.uint64):
        assert load(Pairs(tokens.to(kept))).fingerprint == data.fingerprint
    # Bytes and bools are quantities in every form.
    for kept in (torch.uint8, torch.bool):
        assert load(Pairs(tokens.to(kept))).input_shape == (5,)
    # An array of whole numbers is a table unless it says otherwise.
    assert load({"x": tokens, "y": Y}).input_shape == (5,)


@pytest.mark.parametrize("names", [(), ("x", "labels")])
def test_strings_are_labels(load, names):
    said = ["low", "mid", "top"]
    data = load(Pairs(targets=[said[label] for label in Y.tolist()], names=names))
    assert data.class_names == tuple(said)
    assert data.train.targets.equal(load(Pairs()).train.targets)


class Absolute(Regression):
    """Judged as a regression, trained otherwise."""

    name = "absolute"

    def loss(self, model, batch, *, exact=False):
        del exact
        return (model(batch[0]) - batch[1]).abs().mean()


def test_a_task_of_ones_own(load):
    data = load({"x": X, "y": X[:, :2], "task": Absolute})
    assert isinstance(data.task, Absolute)
    assert data.num_outputs == 2
    again = load({"x": X, "y": X[:, :2], "task": Absolute}, task="absolute")
    assert again.fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (3, "or Datasets or DataLoaders of PyTorch, found int"),
        (Pairs(X[:0], Y[:0]), "at least one sample"),
        (TensorDataset(X), "pairs of inputs and target"),
        (Pairs(names=("first", "second")), "one target in each sample, called labels"),
        (Pairs(targets=[{"a": 1}] * 60), "targets of train .* expected numbers or strings, .* found dict"),
        (Pairs(targets=[("a", "b")] * 60, names=("x", "labels")), "labels in train .* found tuple"),
        ({"x": X, "y": Y, "task": Task}, "a whole subclass"),
        ({"x": X.long(), "y": Y, "vocabulary": 9}, "whole numbers from 0"),
        ({"x": Y[:, None].repeat(1, 3), "y": Y, "vocabulary": 2}, "a number of at least 3"),
    ],
)
def test_others_are_refused_in_one_line(load, made, words):
    with pytest.raises(DataError, match=words) as caught:
        load(made)
    assert "\n" not in str(caught.value)


def test_samples_of_different_shapes_are_told(load):
    class Ragged(Pairs):
        def __getitem__(self, number):
            return torch.zeros(number + 1), 0

    with pytest.raises(DataError, match="RuntimeError: stack expects each tensor to be equal size") as caught:
        load(Ragged())
    assert "\n" not in str(caught.value)


def test_numpy_samples(load):
    assert load(Pairs(X.numpy(), Y.numpy())).fingerprint == load({"x": np.asarray(X), "y": Y}).fingerprint
