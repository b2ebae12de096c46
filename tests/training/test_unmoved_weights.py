"""Changes that are lost in the rounding of the weights, against a count by hand."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store


def record(path, rows, lr, keep=None, **options):
    """Returns the recording, and of each row the gradients of the recorded weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    mask = None if keep is None else Mask(ParameterIndex.from_model(model), keep)
    gradients = []
    with Recorder(model, optimizer, path, codec="exact", mask=mask, **options) as recorder:
        for _ in range(rows * options.get("stride", 1)):
            inputs, targets = torch.randn(2, 9), torch.randint(0, 3, (2,))
            loss = functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            gradients.append(torch.cat([model[0].weight.grad.flatten(), model[2].weight.grad.flatten()]).numpy())
            recorder.step(loss, lambda x=inputs, y=targets: functional.cross_entropy(model(x), y))
    return Store.open(path).recording(), np.array(gradients)


@pytest.mark.parametrize("masked", [False, True])
def test_they_are_counted_in_rows_one_two_four_and_so_on(tmp_path, caplog, masked):
    keep = torch.arange(84) % 3 > 0 if masked else None
    reader, gradients = record(tmp_path / "t.zarr", 20, 3e-7, keep)
    lost, pushed = 0, 0
    for row in (0, 1, 2, 4, 8, 16):
        gradient = gradients[row] if keep is None else gradients[row][keep.numpy()]
        lost += int(((gradient != 0) & (reader.read_rows(row, row + 1)[0] == 0)).sum())
        pushed += int((gradient != 0).sum())
    assert 0 < lost < pushed
    # A dead unit has no gradient, which isn't a change that vanished.
    assert pushed < 6 * reader.num_columns
    assert reader.vanished_share == lost / pushed
    (said,) = caplog.messages
    assert "vanished in the rounding" in said


def test_nothing_is_said_of_a_recording_with_usual_steps(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        reader, _ = record(tmp_path / "t.zarr", 20, 0.1)
    assert reader.vanished_share < 0.01
    assert not caplog.messages


def test_of_several_steps_in_a_row_nothing_is_counted(tmp_path):
    reader, _ = record(tmp_path / "t.zarr", 10, 1e-7, stride=2)
    assert reader.vanished_share is None
