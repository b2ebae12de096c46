"""Shapes of samples as JSON, and as text."""

import pytest

from causalprune.base.compute.shapes import Flags, SeveralInputs, Tokens, shape_from_json, shape_text, shape_to_json
from causalprune.base.errors import CorruptError
from causalprune.base.specs import DataSpec, ModelSpec

SEVERAL = SeveralInputs((Tokens((6,), 20), Flags((6,)), (), (3, 8, 8)), ("ids", "mask", "age", "image"))


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8), Tokens((7,), 30), SEVERAL, SeveralInputs(((2,), (3, 4)))])
def test_a_shape_comes_back_from_its_json(shape):
    assert shape_from_json(shape_to_json(shape)) == shape
    spec = ModelSpec("mine:net", shape, 3)
    assert ModelSpec.from_json(spec.to_json(), "a file") == spec


def test_people_see_them():
    assert shape_text((1, 8, 8)) == "1×8×8"
    assert shape_text(SEVERAL) == "4 inputs (ids 6 tokens, mask 6 flags, age 1, image 3×8×8)"
    assert shape_text(SeveralInputs(((2,),))) == "1 input (2)"


def test_one_of_something_has_no_axes_or_only_such_of_one():
    numbers = SeveralInputs((Tokens((), 5), Tokens((1,), 5), Flags(()), Flags((1, 2))), ("hospital", "ward", "a", "b"))
    assert shape_text(numbers) == "4 inputs (hospital 1 token, ward 1 token, a 1 flag, b 1×2 flags)"


@pytest.mark.parametrize(
    "value",
    [
        [],
        [2, 3],
        [0],
        [True],
        [2**31],
        "5",
        None,
        {"flags": [3]},
        {"tokens": [3]},
        {"tokens": [3, 3], "vocabulary": 4},
        {"tokens": [3], "vocabulary": 0},
        {"inputs": [], "names": []},
        {"inputs": [[3]], "names": ["a", "b"]},
        {"inputs": [[3], [3]], "names": ["a", "a"]},
        {"inputs": [[3]], "names": [1]},
        {"inputs": [{"inputs": [[3]], "names": []}], "names": []},
        {"inputs": [[1] * 9], "names": []},
        {"inputs": 3, "names": []},
    ],
)
def test_others_are_refused(value):
    with pytest.raises(ValueError, match=r".*"):
        shape_from_json(value)
    stored = ModelSpec("mlp", (5,), 3).to_json() | {"input_shape": value}
    with pytest.raises(CorruptError, match="a model specification"):
        ModelSpec.from_json(stored, "a file")


def test_what_was_added_to_a_data_set_is_left_out_where_nobody_asked_for_it():
    assert set(DataSpec().to_json()).isdisjoint({"integers", "target", "task", "channels"})
    spec = DataSpec(name="csv:t.csv", target="price", integers="indices")
    assert DataSpec.from_json(spec.to_json(), "a file") == spec
    with pytest.raises(CorruptError):
        DataSpec.from_json(spec.to_json() | {"integers": "both"}, "a file")
