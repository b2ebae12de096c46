"""Small networks, samples and masks for the tests of flatness."""

import torch
from torch import nn

from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex


def network(hidden=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, 3)).double().eval()


def images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout())
    model.append(nn.Linear(16, 3))
    return model.double().eval()


def batches(shape, sizes=(7, 4), classes=3):
    random = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, *shape, generator=random, dtype=torch.float64),
            torch.randint(classes, (n,), generator=random),
        )
        for n in sizes
    ]


def pruned(model, share=0.4):
    """A mask of random weights, applied."""
    index = ParameterIndex.from_model(model)
    keep = torch.rand(index.total, generator=torch.Generator().manual_seed(2)) > share
    mask = Mask(index, keep)
    mask.apply_(model)
    return mask
