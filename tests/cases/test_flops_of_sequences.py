"""FLOPs of recurrent and attention layers, counted by hand: a multiply-add is two."""

import pytest

NETWORKS = """
from torch import nn

class Sequence(nn.Module):
    def __init__(self, core, width, classes):
        super().__init__()
        self.core, self.head = core, nn.Linear(width, classes)

    def forward(self, x):
        hidden = self.core(x.squeeze(1))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return self.head(hidden.mean(1))

def lstm(input_shape, num_outputs):
    return Sequence(nn.LSTM(8, 16, 2, batch_first=True), 16, num_outputs)

def encoder(input_shape, num_outputs):
    return Sequence(nn.TransformerEncoderLayer(8, 2, 32, batch_first=True), 8, num_outputs)
"""

LSTM = 8 * 2 * (4 * 16 * (8 + 16) + 4 * 16 * (16 + 16))
"""Eight steps through two layers of 16 units with four gates."""
ENCODER = 8 * 2 * (4 * 8 * 8 + 2 * 8 * 32) + 2 * 2 * 8 * 8 * 8
"""Eight tokens of eight features: four projections, two layers of 32 units, and the attention's two products."""


@pytest.mark.parametrize(("name", "flops"), [("lstm", LSTM + 2 * 16 * 10), ("encoder", ENCODER + 2 * 8 * 10)])
def test_every_layer_counts(causalprune, folder, name, flops):
    (folder / "sequences.py").write_text(NETWORKS)
    assert causalprune("pretrain", "--model", f"sequences:{name}", "--epochs", "0", "-q").code == 0
    result = causalprune("evaluate", "--checkpoint", "run/pretrained.safetensors", "--json", "--trust-code", "-q")
    assert result.metrics["evaluation"]["flops_dense"] == flops
