"""Channels that can't be removed alone aren't pruned: what apply-mask prunes, export --compact removes."""

import pytest

NETWORKS = """
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, classes, between, channels):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head, self.between = nn.Linear(16, classes), between

    def forward(self, x):
        return self.head(F.relu(self.second(self.between(self.first(x)))).mean((2, 3)))

def glu(input_shape, num_outputs):
    return Net(num_outputs, lambda h: F.glu(h, 1), 32)

def shuffle(input_shape, num_outputs):
    return Net(num_outputs, lambda h: F.pixel_shuffle(h, 2), 64)

def groups(input_shape, num_outputs):
    mix = lambda h: h.view(len(h), 2, 8, 8, 8).transpose(1, 2).reshape(len(h), 16, 8, 8)
    return Net(num_outputs, mix, 16)
"""
PRUNE = ["--criterion", "magnitude", "--granularity", "channel", "--scope", "layer", "--sparsity", "0.5"]


@pytest.mark.parametrize("name", ["glu", "shuffle", "groups"])
def test_what_is_pruned_by_channels_can_be_compacted(causalprune, folder, name):
    pytest.importorskip("torch_pruning")
    (folder / "coupled.py").write_text(NETWORKS)
    assert causalprune("pretrain", "--model", f"coupled:{name}", "--epochs", "1", "-q").code == 0
    checkpoint = ["--checkpoint", "run/pretrained.safetensors", "--trust-code", "-q"]
    pruned = causalprune("apply-mask", *PRUNE, *checkpoint)
    if pruned.refuses("channel", codes=(2, 3, 5)):
        return
    assert pruned.code == 0, pruned.error
    result = causalprune("export", "--compact", "--checkpoint", "run/pruned.safetensors", "--trust-code", "-q")
    assert result.code == 0, result.error
