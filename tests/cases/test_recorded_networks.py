"""What ``record`` does with networks that are frozen in part or altogether, or would be computed in TensorFloat-32."""

import pytest
import torch

from causalprune.trajectory import Store

NETWORKS = """
import torch
from torch import nn

def net(*frozen):
    def make(input_shape, num_outputs):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_outputs))
        for index in frozen:
            model[index].requires_grad_(False)
        return model
    return make

backbone, everything = net(1), net(1, 3)

class Asking(nn.Linear):
    def forward(self, x):
        with open("precisions", "a") as file:
            file.write(torch.get_float32_matmul_precision() + " ")
        return super().forward(x)

def asking(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), Asking(64, num_outputs))
"""


@pytest.fixture
def start(causalprune, folder):
    """Make an untrained checkpoint of one of the networks."""
    (folder / "recorded.py").write_text(NETWORKS)

    def run(name):
        assert causalprune("pretrain", "--model", f"recorded:{name}", "--epochs", "0", "-q").code == 0

    return run


def test_a_frozen_layer_is_named_in_the_recording(causalprune, start):
    start("backbone")
    assert causalprune("record", "--steps", "4", "--trust-code", "-q").code == 0
    reader = Store.open("run/trajectory.zarr").recording()
    assert reader.untrained == ("1.weight",)
    assert not reader.read_columns(0, 512).any()
    assert reader.read_columns(512, reader.num_columns).any()


def test_nothing_is_recorded_of_a_network_that_is_frozen_altogether(causalprune, start):
    start("everything")
    result = causalprune("record", "--steps", "4", "--trust-code", "-q")
    assert result.refuses("frozen (requires_grad=False)"), result.error


def test_products_are_in_float32_while_recording_and_as_the_user_chose_otherwise(causalprune, start, folder):
    start("asking")
    (folder / "precisions").unlink()
    torch.set_float32_matmul_precision("high")
    try:
        assert causalprune("record", "--steps", "4", "--trust-code", "-q").code == 0
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set((folder / "precisions").read_text().split()) == {"highest"}
