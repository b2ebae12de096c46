import torch
from torch import nn

from causalprune.analysis.cost import parameter_counts


def test_parameters_are_counted_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    keep = {"0.weight": torch.eye(4, dtype=torch.bool)}
    assert parameter_counts(model, keep) == (24, 12)
