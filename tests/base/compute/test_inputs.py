"""Which outputs of a network count."""

from collections import OrderedDict, namedtuple

import pytest
import torch

from causalprune.base.compute.inputs import (
    count_of,
    divided,
    example_inputs,
    forward,
    joined,
    logits_of,
    mapped,
    shape_of,
)
from causalprune.base.compute.shapes import Flags, SeveralInputs, Tokens
from causalprune.base.errors import MismatchError


class Output:
    """As Hugging Face's, but no dictionary."""

    def __init__(self, logits):
        self.logits = logits


Named = namedtuple("Named", "first second")
Y, OTHER = torch.zeros(2), torch.ones(2)


@pytest.mark.parametrize(
    "outputs",
    [
        Y,
        (Y, OTHER),
        [Y],
        {"hidden": OTHER, "logits": Y},
        OrderedDict(loss=OTHER, logits=Y),
        Output(Y),
        namedtuple("N", "loss logits")(OTHER, Y),
        namedtuple("O", "a b")(Y, 1),
    ],
)
def test_a_tensor_the_first_of_a_tuple_or_logits(outputs):
    assert logits_of(outputs) is Y


@pytest.mark.parametrize(
    ("outputs", "found"),
    [({"hidden": Y}, "hidden"), ((), "tuple"), (None, "NoneType"), (("a",), "str"), (Output(3), "Output")],
)
def test_anything_else_is_refused(outputs, found):
    with pytest.raises(MismatchError, match=f"dictionary with `logits`, found .*{found}"):
        logits_of(outputs)


@pytest.mark.parametrize("shape", [(3,), (1, 4, 4), Tokens((6,), 11)])
def test_examples_have_their_shape(shape):
    for random in (False, True):
        inputs = example_inputs(shape, 200, random=random)
        assert shape_of(inputs) == (Tokens((6,), 11 if random else 1) if isinstance(shape, Tokens) else shape)
        assert inputs.equal(example_inputs(shape, 200, random=random))


SEVERAL = {"ids": torch.arange(10).view(5, 2), "keep": torch.ones(5, 2, dtype=torch.bool), "age": torch.randn(5)}


def test_several_inputs_stay_in_their_places():
    for inputs in (SEVERAL, tuple(SEVERAL.values()), SEVERAL["ids"]):
        assert count_of(inputs) == 5
        parts = list(divided(inputs, 2))
        assert [count_of(part) for part in parts] == [2, 2, 1]
        again = joined(parts)
        assert type(again) is type(inputs)
        assert shape_of(again) == shape_of(inputs)
        assert count_of(mapped(lambda part: part[:3], inputs)) == 3
    shape = shape_of(SEVERAL)
    assert shape == SeveralInputs((Tokens((2,), 10), Flags((2,)), ()), ("ids", "keep", "age"))
    for random in (False, True):
        made = example_inputs(shape, 4, random=random)
        assert (list(made), made["keep"].all().item(), made["age"].shape) == (list(SEVERAL), True, (4,))


def test_examples_of_a_single_number_have_no_other():
    shape = SeveralInputs((Tokens((2,), 1), Tokens((2,), 2)), ())
    kinds, mask = example_inputs(shape, 3)
    assert (kinds == 0).all()
    assert (mask == 1).all()


def test_a_network_is_called_by_position_or_by_name():
    def network(first, second=None):
        return first, second

    a, b = torch.zeros(1), torch.ones(1)
    assert forward(network, a) == (a, None)
    assert forward(network, (a, b)) == forward(network, [a, b]) == forward(network, {"second": b, "first": a}) == (a, b)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint64])
def test_whole_numbers_are_looked_up_whatever_their_dtype(dtype):
    whole = torch.arange(10).view(5, 2).to(dtype)
    assert shape_of(whole) == Tokens((2,), 10)
    assert shape_of({"ids": whole, "x": OTHER}).parts[0] == Tokens((2,), 10)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64])
def test_bytes_and_floats_are_not(dtype):
    values = torch.ones(5, 2, dtype=dtype)
    assert shape_of(values) == shape_of((values, OTHER)).parts[0] == (2,)


def test_what_has_no_value_for_each_sample_stays_whole():
    inputs = {"x": torch.arange(5), "scale": torch.tensor(2.0), "table": torch.ones(3, 3)}
    parts = list(divided(inputs, 2))
    assert [part["x"].tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert all(part["scale"] is inputs["scale"] and part["table"] is inputs["table"] for part in parts)
