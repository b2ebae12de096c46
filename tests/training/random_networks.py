"""Small networks with randomness or changing buffers of every kind; each takes (N, 6, 8) and returns (N, 3)."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm
from torchvision.ops import StochasticDepth


class Sequence(nn.Module):
    def __init__(self, core, width=8):
        super().__init__()
        self.core, self.head = core, nn.Linear(width, 3)

    def forward(self, x):
        hidden = self.core(x)
        return self.head((hidden[0] if isinstance(hidden, tuple) else hidden).mean(1))


class Attention(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)


class Noisy(nn.Module):
    """A linear layer on inputs that ``noise`` changes."""

    def __init__(self, noise, **attributes):
        super().__init__()
        self.layer, self.noise = nn.Linear(8, 8), noise
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.layer(self.noise(self, x))


class Averages(nn.Module):
    """Shifts by an average of its inputs, which it keeps as older code does, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("average", torch.zeros(8))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        hidden = self.layer(x - self.average)
        if self.training:
            self.average.data.mul_(0.5).add_(x.mean((0, 1)), alpha=0.5)
            self.calls = self.calls + 1
        return hidden


class Normalized(nn.Module):
    def __init__(self, normalization):
        super().__init__()
        self.layer, self.normalization = nn.Linear(8, 6), normalization

    def forward(self, x):
        return self.normalization(self.layer(x).transpose(1, 2)).transpose(1, 2)


def _skip(module, x):
    return module.layer(x) if random.random() < 0.5 else x


NETWORKS = {
    "dropout": lambda: Sequence(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))),
    "alpha dropout": lambda: Sequence(nn.Sequential(nn.Linear(8, 8), nn.AlphaDropout(0.5))),
    "lstm": lambda: Sequence(nn.LSTM(8, 8, 2, batch_first=True, dropout=0.5)),
    "gru": lambda: Sequence(nn.GRU(8, 8, 2, batch_first=True, dropout=0.5)),
    "encoder layer": lambda: Sequence(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)),
    "attention": lambda: Sequence(Attention(0.5)),
    "rrelu": lambda: Sequence(nn.Sequential(nn.Linear(8, 8), nn.RReLU(0.2, 0.8))),
    "stochastic depth": lambda: Sequence(nn.Sequential(nn.Linear(8, 8), StochasticDepth(0.5, "row"))),
    "dropout function": lambda: Sequence(Noisy(lambda m, x: functional.dropout(x, 0.5, m.training))),
    "noise": lambda: Sequence(Noisy(lambda _, x: x + torch.randn_like(x))),
    "noise of numpy": lambda: Sequence(Noisy(lambda _, x: x + np.random.normal(size=1).item())),  # noqa: NPY002
    "layer drop of python": lambda: Sequence(Noisy(_skip)),
    "noise of a generator": lambda: Sequence(
        Noisy(lambda m, x: x + torch.randn(x.shape, generator=m.source), source=torch.Generator().manual_seed(0))
    ),
    "noise of a numpy generator": lambda: Sequence(
        Noisy(lambda m, x: x + m.source.normal(), source=np.random.default_rng(0))
    ),
    "noise of a python generator": lambda: Sequence(Noisy(lambda m, x: x + m.source.random(), source=random.Random(0))),
    "spectral norm": lambda: Sequence(parametrizations.spectral_norm(nn.Linear(8, 8))),
    "old spectral norm": lambda: Sequence(spectral_norm(nn.Linear(8, 8))),
    "batch norm": lambda: Sequence(Normalized(nn.BatchNorm1d(6)), 6),
    "instance norm": lambda: Sequence(Normalized(nn.InstanceNorm1d(6, track_running_stats=True)), 6),
    "averages": lambda: Sequence(Averages()),
}

SWITCHED_OFF = {
    "dropout",
    "alpha dropout",
    "lstm",
    "gru",
    "encoder layer",
    "attention",
    "rrelu",
    "stochastic depth",
}
"""Those whose randomness ``disable_dropout`` ends."""

DRAWING = {name for name in NETWORKS if not name.endswith("norm") and name != "averages"}
"""Those that draw random numbers."""


def build(name):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    return NETWORKS[name]()
