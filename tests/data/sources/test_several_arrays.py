"""Several inputs from a function of the user: the same data in every form, standardized where they are quantities."""

import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, TensorDataset

from causalprune.base.compute.inputs import parts_of
from causalprune.base.compute.shapes import Flags, SeveralInputs, Tokens
from causalprune.base.errors import CausalpruneError, DataError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.data.batches import Batches
from causalprune.data.datasets import load_data
from causalprune.data.tasks.regression import Regression

N = 60
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 20, (N, 5))
IDS[-1, -1] = 19
AGE = RNG.normal(40, 10, N).astype(np.float32)
IMAGE = RNG.integers(0, 256, (N, 3, 4, 4), dtype=np.uint8)
SERIES = RNG.normal(7, 2, (N, 6, 2)).astype(np.float32)
KEEP = RNG.random((N, 5)) < 0.5
Y = np.arange(N) % 3
ALL = {"ids": IDS, "age": AGE, "image": IMAGE, "series": SERIES, "keep": KEEP}


class Samples(Dataset):
    def __init__(self, make):
        self.make = make

    def __len__(self):
        return N

    def __getitem__(self, number):
        return self.make(number)


@pytest.fixture
def load(monkeypatch):
    def load(made, **spec):
        module = types.ModuleType("data_of_a_user")
        module.make = lambda: made
        monkeypatch.setitem(sys.modules, "data_of_a_user", module)
        return load_data(DataSpec(name="data_of_a_user:make", **spec))

    return load


def named(number):
    return {name: array[number] for name, array in ALL.items()}


@pytest.mark.parametrize(
    "made",
    [
        Samples(lambda i: (named(i), Y[i])),
        Samples(lambda i: named(i) | {"labels": Y[i]}),
        DataLoader(Samples(lambda i: named(i) | {"target": Y[i]}), batch_size=7, shuffle=True),
        {"x": {name: torch.from_numpy(array) for name, array in ALL.items()}, "y": Y},
        {"x": {name: array.tolist() if name == "keep" else array for name, array in ALL.items()}, "y": Y.tolist()},
    ],
)
def test_inputs_by_name_are_the_same_in_every_form(load, made):
    data = load(made)
    assert data.fingerprint == load({"x": ALL, "y": Y}).fingerprint
    shapes = (Tokens((5,), 20), (), (3, 4, 4), (6, 2), Flags((5,)))
    assert data.input_shape == SeveralInputs(shapes, tuple(ALL))


@pytest.mark.parametrize(
    "made",
    [
        TensorDataset(*map(torch.from_numpy, (IDS, AGE, Y))),
        Samples(lambda i: (IDS[i], AGE[i], Y[i])),
        Samples(lambda i: ((IDS[i], AGE[i]), Y[i])),
        DataLoader(Samples(lambda i: ([IDS[i], AGE[i]], Y[i]))),
    ],
)
def test_inputs_by_position_are_the_same_in_every_form(load, made):
    data = load(made)
    assert data.fingerprint == load({"x": (IDS, AGE), "y": Y}).fingerprint
    assert data.input_shape == SeveralInputs((Tokens((5,), 20), ()))


def test_quantities_are_standardized_and_nothing_else_is(load):
    data = load({"x_train": ALL, "y_train": Y, "x_test": {name: ALL[name] for name in reversed(ALL)}, "y_test": Y})
    inputs, targets = next(iter(Batches(data, "test", batch_size=N, device="cpu", seed=0, shuffle=False).epoch(0)))
    assert list(inputs) == list(ALL)
    assert inputs["ids"].equal(torch.from_numpy(IDS))
    assert inputs["keep"].equal(torch.from_numpy(KEEP))
    assert targets.equal(torch.from_numpy(Y))
    train = data.train.inputs
    for name, axes in (("age", 0), ("image", (0, 2, 3)), ("series", None)):
        known = train[name].numpy().astype(np.float64)
        mean, std = known.mean(axes, keepdims=True), known.std(axes, keepdims=True)
        expected = (ALL[name].astype(np.float64) - mean) / std
        assert inputs[name].dtype == torch.float32
        np.testing.assert_allclose(inputs[name].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_batches_of_several_processes_are_those_of_one(load):
    from causalprune.base.compute.runtime import Processes

    data = load({"x": ALL, "y": Y})
    options = {"batch_size": 11, "device": "cpu", "seed": 3}
    whole = list(Batches(data, "train", **options).epoch(1))
    halves = [Batches(data, "train", group=Processes(rank, 2), **options).epoch(1) for rank in range(2)]
    for (inputs, targets), *parts in zip(whole, *halves, strict=True):
        assert torch.cat([y for _, y in parts]).equal(targets)
        for name in inputs:
            assert torch.cat([x[name] for x, _ in parts]).equal(inputs[name])


def test_a_vocabulary_may_be_larger_than_the_data_show(load):
    assert load({"x": {"ids": IDS}, "y": Y, "vocabulary": {"ids": 30}}).input_shape.parts == (Tokens((5,), 30),)
    assert load({"x": (IDS, AGE), "y": Y, "vocabulary": (25, 0)}).input_shape.parts == (Tokens((5,), 25), ())


def test_a_text_with_a_mask(load):
    data = load({"x": {"ids": IDS[:, :-1], "keep": KEEP[:, :-1]}, "y": IDS[:, 1:]}, task="next-token")
    assert (data.task.name, data.num_outputs) == ("next-token", 20)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"x": {}, "y": Y}, "inputs by their names"),
        ({"x": {"ids": IDS, "age": AGE[:9]}, "y": Y}, "inputs of one length"),
        ({"x": {"ids": IDS}, "y": Y[:9]}, "x and y of one length, found 60 and 9"),
        (
            {"x": {"ids": IDS - 1}, "y": Y},
            "input ids of x .*from 0, which a network looks up, found -1; make them floats",
        ),
        ({"x": {"name": np.array(["a"] * N)}, "y": Y}, "input name of x .*numbers or bools"),
        ({"x": {"age": np.where(AGE > 50, np.nan, AGE)}, "y": Y}, "input age of x .*finite float32 numbers"),
        ({"x": {"age": np.float32(3)}, "y": Y}, "one or more for each sample"),
        ({"x_train": ALL, "y_train": Y, "x_test": IDS, "y_test": Y}, "x_test of several inputs, .*found one"),
        ({"x_train": ALL, "y_train": Y, "x_test": {"ids": IDS}, "y_test": Y}, "the inputs of x_train, ids, age"),
        (
            {"x_train": {"a": AGE}, "y_train": Y, "x_test": {"a": IDS}, "y_test": Y},
            r"input a of x_test .*float32, samples of \(\), as in the training data, found int64",
        ),
        ({"x": {"ids": IDS}, "y": Y, "vocabulary": 9}, "numbers for the inputs ids"),
        ({"x": {"ids": IDS}, "y": Y, "vocabulary": {"ids": 9}}, "at least 20 for ids"),
        ({"x": {"ids": IDS}, "y": Y, "vocabulary": {"words": 90}}, "numbers for the inputs ids"),
        (Samples(lambda i: {"a": IDS[i], "text": "word", "labels": Y[i]}), "no numbers in text; return"),
        (Samples(lambda i: {"a": IDS[i], "y": Y[i], "labels": Y[i]}), "inputs and one target in each sample"),
        (Samples(lambda i: ({"a": "word"}, Y[i])), "no numbers in a"),
        (Samples(lambda i: IDS[i]), "pairs of inputs and target"),
    ],
)
def test_others_are_refused_in_one_line(load, made, words):
    with pytest.raises(DataError, match=words) as caught:
        load(made)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", [{"channels": "first"}, {"augment": "crop"}])
def test_options_of_images_are_refused(load, option):
    with pytest.raises(UsageError, match="several inputs"):
        load({"x": ALL, "y": Y}, **option)


class Scaled(Regression):
    name = "scaled"


def test_a_task_beside_datasets_as_a_class_an_object_or_a_name(load):
    samples = TensorDataset(torch.from_numpy(SERIES[:, 0]), torch.from_numpy(SERIES[:, 1]))
    for task, kind in ((Scaled, Scaled), (Scaled(label_smoothing=0.1), Scaled), ("regression", Regression)):
        data = load({"train": samples, "test": samples, "task": task})
        assert (type(data.task), data.num_outputs) == (kind, 2)
        assert data.task.label_smoothing == (0.1 if isinstance(task, Scaled) else 0)


def odd_array(draw):
    """Such as somebody's function might return."""
    kind = draw(
        st.sampled_from(
            ["float32", "float64", "float16", "int8", "int64", "uint8", "uint64", "bool", "complex64", "O", "U3"]
        )
    )
    shape = draw(
        st.sampled_from([(), (0,), (12,), (12, 1), (12, 3), (11, 3), (12, 2, 2), (12, 1, 4, 4), (12,) + (1,) * 9])
    )
    values = np.random.default_rng(draw(st.integers(0, 3))).integers(-1 if kind[0] in "fc" else 0, 9, shape)
    array = values.astype(kind)
    if kind == "float64" and array.size and draw(st.booleans()):
        array.flat[0] = draw(st.sampled_from([np.nan, np.inf, 1e300]))
    return draw(st.sampled_from([array, array.tolist(), None, "word"])) if draw(st.integers(0, 9)) == 0 else array


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_anything_is_read_or_refused_in_one_line(load, data):
    names = data.draw(st.lists(st.sampled_from(["a", "b", 3, None]), max_size=3, unique=True))
    parts = [odd_array(data.draw) for _ in names]
    inputs = data.draw(st.sampled_from([dict(zip(names, parts, strict=True)), tuple(parts)]))
    said, tensors = "", []
    try:
        found = load({"x": inputs, "y": np.arange(12) % 2})
        batch, _ = next(iter(Batches(found, "train", batch_size=4, device="cpu", seed=0).epoch(0)))
        tensors = parts_of(batch)
    except CausalpruneError as error:
        said = str(error)
    assert bool(said) != bool(tensors)
    assert "\n" not in said
    assert all(len(tensor) == 4 and tensor.isfinite().all() for tensor in tensors)
