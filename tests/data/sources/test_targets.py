"""Labels in every form give the classes that a person would see, and it is said which."""

import numpy as np
import pytest
import torch

from causalprune.base.errors import DataError, UsageError
from causalprune.data.sources.targets import read_targets

CLASSES = np.arange(60) % 3
"""Sixty labels of three classes."""


def read(*arrays, task="auto", **options):
    return read_targets(dict(zip(("y", "y_test"), map(np.asarray, arrays), strict=False)), "d", task=task, **options)


def check(found, labels=CLASSES, names=("0", "1", "2")):
    assert found.values[0].dtype == torch.int64
    assert found.values[0].tolist() == list(labels)
    assert found.class_names == tuple(names)


@pytest.mark.parametrize("dtype", [*"bBhHiIlLqQ", ">i2", ">u8"])
def test_integers_of_every_dtype(dtype):
    found = read(CLASSES.astype(dtype), CLASSES[:5].astype("i8"))
    check(found)
    assert found.values[1].tolist() == [0, 1, 2, 0, 1]
    assert not found.notes


def test_bools():
    check(read(CLASSES == 1), CLASSES == 1, "01")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g"])
def test_whole_floats_are_labels_if_each_occurs_often_and_that_is_said(dtype):
    found = read(CLASSES.astype(dtype))
    check(found)
    assert "whole numbers as floats" in found.notes[0]
    assert "`task=regression`" in found.notes[0]


def test_whole_floats_that_hardly_repeat_are_quantities_and_that_is_said():
    values = np.arange(60.0)
    found = read(values)
    assert found.values[0].tolist() == values.tolist()
    assert found.class_names == ()
    assert "`task=classification`" in found.notes[0]


def test_task_decides_either_way_and_then_nothing_is_said():
    assert read(CLASSES, task="regression").values[0].tolist() == CLASSES.tolist()
    assert read(CLASSES, task="regression").class_names == ()
    assert not read(CLASSES.astype(float), task="regression").notes
    found = read(np.arange(60.0), task="classification")
    check(found, range(60), map(str, range(60)))
    assert not found.notes


def test_strings_that_hardly_repeat_are_refused_and_never_called_quantities():
    with pytest.raises(
        DataError, match=r"occur 10 times on average, found 60 .*; pass `task=classification` if they are labels$"
    ):
        read([f"name {number}" for number in range(60)])


def test_fractions_are_quantities():
    found = read(CLASSES + 0.5)
    assert (found.values[0].dtype, found.class_names, found.notes) == (torch.float32, (), ())
    # One fraction, even in the test data, makes all of them quantities.
    assert read(CLASSES.astype(float), [0.5]).class_names == ()


def test_quantities_far_from_zero_keep_their_digits():
    found = read(1e8 + np.linspace(0, 1, 50), 1e8 + np.linspace(0, 1, 7))
    assert {v.dtype for v in found.values} == {torch.float64}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([-1, 1, 5])[CLASSES], ["-1", "1", "5"]),
        (CLASSES + 1, ["1", "2", "3"]),
        (np.array([0, 2**63, 2**64 - 1], np.uint64)[CLASSES], ["0", str(2**63), str(2**64 - 1)]),
        (np.array([1.0, 2, 4])[CLASSES], ["1", "2", "4"]),
        (np.array(["ant", "bee", "çat"])[CLASSES], ["ant", "bee", "çat"]),
        (np.array(["ant", "bee", "çat"])[CLASSES].reshape(-1, 1), ["ant", "bee", "çat"]),
        (np.array(["ant", "bee", "çat"])[CLASSES].astype(object).astype("U"), ["ant", "bee", "çat"]),
        (np.char.encode(np.array(["ant", "bee", "çat"])[CLASSES], "utf-8"), ["ant", "bee", "çat"]),
    ],
)
def test_other_labels_are_numbered_in_order_and_the_mapping_is_said(labels, names):
    found = read(labels, labels[:4])
    check(found, names=names)
    assert found.values[1].tolist() == CLASSES[:4].tolist()
    assert found.notes[-1].startswith("y in d: labels → classes: ")
    assert all(f"{name}" in found.notes[-1] for name in names)


def test_many_labels_are_not_all_listed():
    found = read(np.arange(1, 31).repeat(10))
    assert found.notes == ("y in d: labels → classes: 1 → 0, 2 → 1, …, 30 → 29",)


@pytest.mark.parametrize("dtype", ["u1", "?", "f4", "i8"])
def test_one_hot_rows(dtype):
    # The last of four columns has no sample, but is a class.
    found = read(np.eye(4)[CLASSES].astype(dtype), np.eye(4)[[3]])
    check(found, names="0123")
    assert found.values[1].tolist() == [3]
    assert "one-hot" in found.notes[0]


def test_names_give_strings_their_order_and_keep_classes_without_samples():
    found = read(np.array(["low", "high", "mid"])[CLASSES], class_names=["low", "mid", "high"])
    check(found, np.array([0, 2, 1])[CLASSES], ("low", "mid", "high"))
    check(read(CLASSES, [3], class_names=["a", "b", "c", "d"]), names="abcd")
    check(read(CLASSES * 5, class_names=["a", "b", "c"]), names="abc")


def test_a_test_label_that_is_not_trained_on_is_named():
    with pytest.raises(DataError, match=r"y_test in d: .*training data, found the label 'eel'"):
        read(np.array(["ant", "bee", "cat"])[CLASSES], ["ant", "eel"])
    with pytest.raises(DataError, match="found the label 7"):
        read(CLASSES, [7])


@pytest.mark.parametrize("labels", [np.array(["a", "b", "c"])[CLASSES], np.eye(3)[CLASSES]])
def test_names_and_one_hot_rows_are_no_quantities(labels):
    with pytest.raises(UsageError, match="`task`: expected classification"):
        read(labels, task="regression")


def test_fractions_are_no_labels():
    with pytest.raises(DataError, match=r"labels.*found 0\.5"):
        read(CLASSES + 0.5, task="classification")
