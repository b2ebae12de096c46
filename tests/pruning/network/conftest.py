"""A network with a recording of its own loop."""

import pytest
import torch
from recorded_network import record
from torch import nn


@pytest.fixture
def recorded(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))
    return record(model, tmp_path / "trajectory.zarr", torch.randn(24, 6))
