"""A network of another float type than float32 is recorded, or refused before it is trained."""

import pytest

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, classes)

    def forward(self, x):
        return self.second(self.first(x.flatten(1).to(self.first.weight.dtype)).relu()).float()

def bfloat16(input_shape, num_outputs):
    return Net(num_outputs).bfloat16()

def float64(input_shape, num_outputs):
    return Net(num_outputs).double()
"""


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_network_is_recorded_or_refused_before_training(causalprune, folder, dtype):
    (folder / "halves.py").write_text(NETWORK)
    trained = causalprune("pretrain", "--model", f"halves:{dtype}", "--epochs", "1", "-q")
    if trained.refuses(dtype):
        return
    assert trained.code == 0, trained.error
    recorded = causalprune("record", "--steps", "10", "--trust-code", "-q")
    assert recorded.code == 0, recorded.error
