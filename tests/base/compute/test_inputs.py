"""Which outputs of a network count."""

from collections import OrderedDict, namedtuple

import pytest
import torch

from causalprune.base.compute.inputs import example_inputs, logits_of, shape_of
from causalprune.base.errors import MismatchError
from causalprune.base.shapes import Tokens

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
        namedtuple("O", "a b")(Y, 1),
    ],
)
def test_a_tensor_the_first_of_a_tuple_or_logits(outputs):
    assert logits_of(outputs) is Y


@pytest.mark.parametrize(
    ("outputs", "found"), [({"hidden": Y}, "hidden"), ((), "tuple"), (None, "NoneType"), (("a",), "str")]
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
