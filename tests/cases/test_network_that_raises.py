"""A network of the user that fails once it is in use: one line that names it, exit 3, at every command."""

import pytest

NETWORK = """
import pathlib
from torch import nn

class Moody(nn.Module):
    '''Fails in what the file "when" says.'''

    def __init__(self, shape, outputs):
        super().__init__()
        self.hidden, self.last = nn.Linear(30, 8), nn.Linear(8, outputs)

    def forward(self, inputs):
        when = pathlib.Path("when").read_text()
        if len(inputs) > 2 and when == ("training" if self.training else "evaluation"):
            raise LookupError("in a bad mood")
        if len(inputs) > 2 and when == "shape":
            inputs = inputs[:, :29]
        if len(inputs) > 2 and when == "exit":
            raise SystemExit(0)
        return self.last(self.hidden(inputs).relu())

def net(input_shape, num_outputs):
    return Moody(input_shape, num_outputs)
"""

COMMANDS = {
    "pretrain": ["--model", "moody:net", "--dataset", "breast-cancer", "--epochs", 1, "--overwrite"],
    "record": ["--steps", 3, "--store", "again.zarr", "--output", "again.safetensors", "--trust-code"],
    "apply-mask": ["--criterion", "surgeon", "--sparsity", 0.6, "--output", "other.safetensors", "--trust-code"],
    "repair": ["--trust-code"],
    "posttrain": ["--epochs", 1, "--trust-code"],
    "evaluate": ["--checkpoint", "run/pruned.safetensors", "--trust-code"],
    "diagnose": ["--placebo", 0, "--trust-code"],
    "export": ["--checkpoint", "run/pruned.safetensors", "--compact", "--trust-code"],
    "run": ["--model", "moody:net", "--dataset", "breast-cancer", "--pretrain-epochs", 1, "--run", "whole"],
}


@pytest.fixture
def trained(folder, causalprune):
    """Trained while it was well."""
    (folder / "moody.py").write_text(NETWORK)
    when(folder, "never")
    assert causalprune("pretrain", *COMMANDS["pretrain"], "-q").code == 0
    return folder


def when(folder, mood):
    (folder / "when").write_text(mood)


def test_every_command_says_so_in_one_line(trained, causalprune):
    for made in (
        ["record", "--steps", 12, "--trust-code"],
        ["fit-gamma"],
        ["apply-mask", "--sparsity", 0.5, "--granularity", "neuron", "--trust-code"],
    ):
        assert causalprune(*made, "-q").code == 0
    for command, options in COMMANDS.items():
        for mood, says in {
            "training": "network Moody: expected outputs for inputs of shape (",
            "evaluation": "network Moody: expected outputs for inputs of shape (",
            "shape": "network Moody, layer hidden (Linear): expected outputs for inputs of shape (",
        }.items():
            trains = command in ("pretrain", "record", "posttrain", "run")
            if (mood == "training" and not trains) or (mood == "evaluation" and command == "record"):
                continue
            when(trained, mood)
            result = causalprune(command, *options, "-q")
            assert result.refuses(says, codes=[3]), (command, mood, result.code, result.error)
            assert "internal" not in result.error
            assert ("found RuntimeError: " if mood == "shape" else "found LookupError: in a bad mood") in result.error


EVALUATE = ["evaluate", "--checkpoint", "run/pretrained.safetensors", "--trust-code", "-q"]


def test_an_exit_is_no_silent_end(trained, causalprune):
    when(trained, "exit")
    assert causalprune(*EVALUATE).refuses("found SystemExit: 0", codes=[3])


def test_debug_shows_where(trained, causalprune, monkeypatch):
    when(trained, "evaluation")
    monkeypatch.setenv("CAUSALPRUNE_DEBUG", "")
    result = causalprune(*EVALUATE, "--debug")
    assert result.code == 3
    assert 'raise LookupError("in a bad mood")' in result.error


ROWS = """
import numpy as np

class Rows(dict):
    def __getitem__(self, key):
        if key == "y":
            raise LookupError("no such row")
        return super().__getitem__(key)

def rows():
    return Rows(x=np.zeros((20, 3)), y=np.arange(20) % 2)
"""


def test_data_that_raise_when_they_are_read(folder, causalprune):
    (folder / "rows.py").write_text(ROWS)
    result = causalprune("pretrain", "--dataset", "rows:rows", "-q")
    assert result.refuses("rows.Rows.__getitem__: expected no exception, found LookupError: no such row", codes=[3])
