"""Dropout inside LSTMs, attention and stochastic depth is off while a recording is made, as nn.Dropout's is.

At a learning rate of 1e-12 the weights don't move, so a loss change above rounding is noise of the network.
"""

import numpy as np
import pytest
import zarr

NETWORKS = """
import torch
from torch import nn
from torchvision.ops import StochasticDepth

class Sequence(nn.Module):
    def __init__(self, core, width, classes):
        super().__init__()
        self.core, self.head = core, nn.Linear(width, classes)

    def forward(self, x):
        hidden = self.core(x.squeeze(1))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return self.head(hidden.mean(1))

def lstm(p):
    def make(input_shape, num_outputs):
        return Sequence(nn.LSTM(input_shape[-1], 16, 2, batch_first=True, dropout=p), 16, num_outputs)
    return make

def encoder(p):
    def make(input_shape, num_outputs):
        width = input_shape[-1]
        return Sequence(nn.TransformerEncoderLayer(width, 2, 32, dropout=p, batch_first=True), width, num_outputs)
    return make

def depth(p):
    def make(input_shape, num_outputs):
        return Sequence(nn.Sequential(nn.Linear(8, 8), StochasticDepth(p, "row")), 8, num_outputs)
    return make

lstm_with, lstm_without = lstm(0.5), lstm(0.0)
encoder_with, encoder_without = encoder(0.1), encoder(0.0)
depth_with, depth_without = depth(0.5), depth(0.0)
"""


@pytest.mark.parametrize(
    "name",
    [
        "lstm_without",
        "encoder_without",
        "depth_without",
        "lstm_with",
        "encoder_with",
        "depth_with",
    ],
)
def test_the_loss_changes_only_as_the_weights_do(causalprune, folder, name):
    (folder / "sequences.py").write_text(NETWORKS)
    assert causalprune("pretrain", "--model", f"sequences:{name}", "--epochs", "0").code == 0
    recorded = causalprune("record", "--steps", "6", "--lr", "1e-12", "--batch-size", "16", "--trust-code")
    if recorded.refuses("dropout"):
        return
    assert recorded.code == 0, recorded.error
    before, after = zarr.open_group("run/trajectory.zarr", mode="r")["recordings/000/steps"][:][:2]
    assert np.abs(after - before).mean() < 1e-6
