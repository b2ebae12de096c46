"""A gate that random inputs leave shut and pictures open: the compact network computes what the masked one does."""

import pytest
import torch
from sklearn.datasets import load_digits

NETWORK = """
from torch import nn
from torch.nn import functional as F

class Gated(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        gate = F.relu(x.mean((1, 2, 3), keepdim=True) - 0.1) * 100
        return self.head(F.relu(self.second(F.relu(self.first(x)) * gate)).mean((2, 3)))

def net(input_shape, num_outputs):
    return Gated(num_outputs)
"""
PRUNE = ["--criterion", "magnitude", "--granularity", "channel", "--scope", "layer", "--sparsity", "0.5"]


def test_a_compact_network_computes_what_the_masked_one_does(causalprune, folder):
    pytest.importorskip("torch_pruning")
    (folder / "gates.py").write_text(NETWORK)
    assert causalprune("pretrain", "--model", "gates:net", "--epochs", "10", "--lr", "0.01", "-q").code == 0
    checkpoint = ["--checkpoint", "run/pretrained.safetensors"]
    assert causalprune("apply-mask", *PRUNE, *checkpoint, "--trust-code", "-q").code == 0
    export = ["export", "--format", "pt2", "--checkpoint", "run/pruned.safetensors", "--trust-code", "-q"]
    assert causalprune(*export, "--output", "masked.pt2").code == 0
    compact = causalprune(*export, "--compact", "--output", "compact.pt2")
    if compact.code in (3, 5):
        return
    assert compact.code == 0, compact.error
    masked, small = (torch.export.load(folder / f"{n}.pt2").module() for n in ("masked", "compact"))
    pictures = torch.tensor(load_digits().images[:256, None], dtype=torch.float32)
    pictures = (pictures - pictures.mean()) / pictures.std()
    with torch.no_grad():
        expected, found = masked(pictures), small(pictures)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
