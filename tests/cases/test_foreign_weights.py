"""``--init-from`` reads state dicts in the forms that PyTorch's users keep them in."""

import pytest
import torch
from torch import nn

NETWORKS = """
from torch import nn

def plain(input_shape=None, num_outputs=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, num_outputs))

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = plain()

    def forward(self, x):
        return self.module(x)

def wrapped(input_shape=None, num_outputs=10):
    return Wrapped()
"""


@pytest.fixture
def state(folder):
    """A state dict of ``plain``."""
    (folder / "foreign.py").write_text(NETWORKS)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10)).state_dict()


@pytest.fixture
def start(causalprune, folder, state):
    """``pretrain`` from what is saved."""

    def pretrain(saved, model="plain"):
        torch.save(saved, folder / "weights.pt")
        options = ["--model", f"foreign:{model}", "--init-from", "weights.pt", "--epochs", "0", "-q"]
        return causalprune("pretrain", *options)

    return pretrain


def test_a_plain_state_dict(start, state):
    assert start(state).code == 0


def test_a_prefix_of_a_wrapper_that_the_network_lacks_is_stripped(start, state):
    assert start({f"module.{name}": tensor for name, tensor in state.items()}).code == 0


def test_a_network_with_an_attribute_called_module_reads_its_own_state_dict(start, state):
    result = start({f"module.{name}": tensor for name, tensor in state.items()}, model="wrapped")
    assert result.code == 0, result.error


def test_integers_for_floats_are_refused(start, state):
    integers = {n: (t * 100).to(torch.int8) if t.is_floating_point() else t for n, t in state.items()}
    assert start(integers).refuses("int8")


@pytest.mark.parametrize("key", ["model_state_dict", "net"])
def test_a_state_dict_within_a_checkpoint_is_found(start, state, key):
    result = start({"epoch": 1, key: state})
    assert result.code == 0, result.error


def test_a_state_dict_of_old_without_num_batches_tracked(start, state):
    result = start({name: tensor for name, tensor in state.items() if "num_batches" not in name})
    assert result.code == 0, result.error
