"""A network's code that was edited since it was trained is noticed: the weights belong to another network."""

import pytest

NETWORK = """
from torch import nn

def net(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.{}(), nn.Linear(64, num_outputs))
"""

PRETRAIN = ["pretrain", "--model", "edited:net", "--epochs", "2"]


@pytest.fixture
def trained_then_edited(causalprune, folder):
    (folder / "edited.py").write_text(NETWORK.format("ReLU"))
    assert causalprune(*PRETRAIN, "-q").code == 0
    (folder / "edited.py").write_text(NETWORK.format("Tanh  "))


def test_the_same_command_does_not_take_it_for_done(causalprune, trained_then_edited):
    again = causalprune(*PRETRAIN)
    assert again.code == 5
    assert "found a result of the code of edited:net before a change" in again.error


def test_evaluate_refuses_or_warns(causalprune, trained_then_edited):
    result = causalprune("evaluate", "--checkpoint", "run/pretrained.safetensors", "--trust-code")
    assert result.code != 0 or "the code of edited:net has changed since" in result.error
