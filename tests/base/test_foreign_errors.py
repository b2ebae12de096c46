"""Whose exception it is, by where it was raised: a network's, other code of the user, or ours."""

import re
import types

import pytest
import torch
from torch import nn

from causalprune.base.errors import DataError
from causalprune.base.foreign_errors import foreign_error
from causalprune.data.tasks.classification import Classification
from causalprune.models.networks import LeNet
from causalprune.pruning.layer_calls import Walk, weight_uses


def module(name, text, file):
    """A module of this name whose code lies in ``file``."""
    made = types.ModuleType(name)
    exec(compile(text, file, "exec"), made.__dict__)
    return made


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2))

    def forward(self, inputs):
        return self.body(inputs)

class Raising(Net):
    def forward(self, inputs):
        raise {error}

class Rows(dict):
    def __getitem__(self, key):
        raise KeyError("no rows")
"""


def raised(action):
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def user(error="LookupError('within')", file="/home/someone/mine.py"):
    return module("mine", NETWORK.format(error=error), file)


X = torch.zeros(3, 4)


@pytest.mark.parametrize("file", ["/home/someone/mine.py", "/opt/env/lib/python3/site-packages/mine/net.py"])
def test_a_network_is_named_with_its_layer_the_shape_and_what_was_raised(file):
    said = str(foreign_error(raised(lambda: user(file=file).Net()(X))))
    assert said.startswith(
        "network Net, layer body.1 (Linear): expected outputs for inputs of shape (3, 4), found Runtime"
    )
    assert "mat1 and mat2 shapes" in said
    assert said.endswith("; `debug` shows where")
    direct = foreign_error(raised(lambda: user(file=file).Raising()(X)))
    assert str(direct).startswith(
        "network Raising: expected outputs for inputs of shape (3, 4), found LookupError: within;"
    )
    assert isinstance(direct, DataError)
    assert isinstance(direct.__cause__, LookupError)


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (
            lambda: LeNet((1, 8, 8), 10)(torch.zeros(2, 3, 8, 8)),
            r"^network LeNet, layer .* shape \(2, 3, 8, 8\), found Run",
        ),
        (lambda: nn.Sequential(nn.Linear(1, 1))(X), r"^network Sequential, layer 0 \(Linear\)"),
        (lambda: nn.DataParallel(user().Raising(), device_ids=[])(X), "^network Raising: "),
        (lambda: weight_uses(user().Net(), X, {}), "^network Net, layer body.1"),
        (lambda: Walk(user().Net(), X, {}, after=False).advance(), "^network Net, layer body.1"),
        (lambda: Classification().criterion((X, X), torch.zeros(3)), "^loss CrossEntropyLoss: .*TypeError"),
        (lambda: user().Rows()["x"], "^mine.Rows.__getitem__: expected no exception, found KeyError: 'no rows';"),
        (lambda: user("SystemExit(3)").Raising()(X), "found SystemExit: 3;"),
        (lambda: user("ValueError()").Raising()(X), "found ValueError;"),
        (lambda: user("ValueError('two\\nlines' * 99)").Raising()(X), "found ValueError: two linestwo lines"),
    ],
)
def test_other_code_that_is_not_ours(action, says):
    said = str(foreign_error(raised(action)))
    assert re.search(says, said), said
    assert "\n" not in said
    assert len(said) < 400


OURS = """
from torch import nn

def loop(model, inputs):
    return model.weight @ inputs

def hook(layer, arguments):
    raise LookupError("ours")

def call(model, inputs):
    model.register_forward_pre_hook(hook)
    return model(inputs)

def read(rows):
    return sorted(rows)
"""


@pytest.mark.parametrize("action", ["loop(nn.Linear(2, 2), X)", "call(nn.Linear(4, 2), X)", "read([1, 'a'])"])
def test_what_our_code_raises_is_ours(action):
    ours = module("causalprune.invented", OURS, "/opt/env/lib/python3/site-packages/causalprune/invented.py")
    error = raised(lambda: eval(f"ours.{action}", {"ours": ours, "nn": nn, "X": X}))
    assert isinstance(error, (RuntimeError, LookupError, TypeError))
    assert foreign_error(error) is None


def test_an_exception_that_was_never_raised_is_nobodys():
    assert foreign_error(ValueError("new")) is None


def test_a_tensor_changed_in_place_is_the_networks_error():
    def net(inputs):
        hidden = torch.relu(inputs)
        hidden += 1
        return hidden.sum()

    with pytest.raises(RuntimeError) as raised:
        net(torch.ones(3, requires_grad=True)).backward()
    # Raised in a test, which is a user's code; a loop of ours has none of its frames.
    for error in (raised.value, _raised_in_our_loop(net)):
        found = foreign_error(error)
        assert found is not None
        assert "inplace operation" in str(found)
    assert "backward pass of the network" in str(found)


def _raised_in_our_loop(net):
    loop = {"__name__": "causalprune.training.loop"}
    exec("def step(loss):\n    loss.backward()", loop)
    try:
        loop["step"](net(torch.ones(3, requires_grad=True)))
    except RuntimeError as error:
        # Without the frame of this test, which calls the loop.
        return error.with_traceback(error.__traceback__.tb_next)
